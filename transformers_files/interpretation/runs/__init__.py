"""Runs over a file of examples: planned, resumable, shared by several processes."""
