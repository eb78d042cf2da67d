"""Twins in other frameworks, to race against; they need the extra `peers`."""
