"""Published readers of activations, recognised by their own files.

from transformers.interpretation.readers.formats import find_reader

fitted = find_reader("adapters/wikipedia-scalar-affine.safetensors").fit(model, tokenizer)
interpret(model, tokenizer, prompt, **fitted.options)
"""
