"""Denoisers that differ: their noise levels matched, and each in the other's place."""
