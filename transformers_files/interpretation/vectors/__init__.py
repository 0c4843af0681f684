"""Files of vectors, opened without reading them and read a few rows at a time: one module per format."""
