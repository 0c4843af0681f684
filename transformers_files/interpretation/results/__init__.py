"""What comes out: the record of one interpretation, its columns, CSV and Parquet, and how far to trust it."""
