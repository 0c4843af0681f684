"""Features of a model: sparse autoencoders, the texts that activate them, and scores for what they are called."""
