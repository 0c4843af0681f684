"""Maps from one space of hidden states to another: affine maps, learned translators, and their files."""
