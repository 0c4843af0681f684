"""A live page: type a prompt, click a token, read what its hidden embeddings say.

    python -m transformers.interpretation.explorer --model meta-llama/Llama-3.1-8B-Instruct

    with Explorer(model, tokenizer) as explorer:      # the same from Python, in a thread
        print(explorer.url)

Needs the packages fastapi and uvicorn.
"""

from __future__ import annotations

from .server import Explorer

__all__ = ["Explorer"]
