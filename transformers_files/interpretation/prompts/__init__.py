"""What is read: examples, interpretation prompts with their placeholders, and selections of layers and tokens."""
