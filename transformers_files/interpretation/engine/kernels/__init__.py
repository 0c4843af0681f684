"""Faster functions for a decode step on a CPU; the engine computes the same without them."""
