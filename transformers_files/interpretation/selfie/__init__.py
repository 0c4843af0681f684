"""The functions of the package `selfie` (https://github.com/tonychenxyz/selfie), over this package's engine.

    from transformers.interpretation.selfie import InterpretationPrompt, interpret   # was: selfie.interpret
    from transformers.interpretation.selfie import generate_interpret, model_forward_interpret   # was: its wrappers

    prompt = InterpretationPrompt(tokenizer, ("[INST]", 0, 0, 0, 0, 0, "[/INST] Sure, I will summarize the message:"))
    table = interpret(original_prompt="…", tokenizer=tokenizer, interpretation_prompt=prompt, model=model,
                      tokens_to_interpret=[(10, 5), (10, 6)], bs=8, max_new_tokens=30, k=1)

Kept as they are there, also where the rest of this package does otherwise:

- a placeholder is the text "_ ", and its places are found by the length of what is encoded up to it: the token of the
  space belongs to them, or the one that the space has merged with (`prompts` has exactly one token per placeholder);
- prompts are encoded as they are, with the tokenizer's special tokens and without a chat template;
- a layer is an index into `hidden_states` (0 the embeddings, n_layers after the final norm), `k` the decoder layer at
  whose input the embedding overwrites what was there, in the pass over the interpretation prompt alone;
- `interpret` returns a dict of lists, `interpret_vectors` a list of texts;
- `interpret_vectors` takes a `k` and inserts at layer 1 whatever it is.

What differs: every model of `families` works; `interpret` decodes by argmax whatever the model's generation config says
(there a config that samples loses the insertion); a `k` that the model does not have is an error, not an interpretation
without an embedding; a relevancy score ends with the token that ended the text, and has no entries for the padding
behind it; positions of `insert_info` are columns of the prompt, those in a cache included, and a prompt of one token is
operated on like any other.
"""

from .interpreting import InterpretationPrompt, interpret, interpret_vectors
from .wrappers import (
    decoder_layer_forward_interpret,
    generate_interpret,
    model_forward_interpret,
    model_model_forward_interpret,
)

__all__ = [
    "InterpretationPrompt",
    "decoder_layer_forward_interpret",
    "generate_interpret",
    "interpret",
    "interpret_vectors",
    "model_forward_interpret",
    "model_model_forward_interpret",
]
