"""The registry of named denoisers; an entry is data, never code."""
