"""Interpretation of one chunk of hidden states: batched decoding under surgery, with relevancy."""
