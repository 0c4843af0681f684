"""What is known of a model: its layers, caches, hidden states, logits, chat template, placement and cost."""
