"""What the programs of the folder above share, or are made of: nothing here is a program."""
