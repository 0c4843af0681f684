# ---- llm-interpret: everything above is the library's file, unchanged ----
from transformers.interpretation.surgery.methods import bind_forward as _bind_forward_interpret

_bind_forward_interpret(LlamaForCausalLM)
