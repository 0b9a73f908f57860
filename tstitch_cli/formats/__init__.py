"""Documents to values and back, strictly."""
