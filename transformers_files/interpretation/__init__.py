"""Natural-language interpretations of a language model's hidden embeddings."""
