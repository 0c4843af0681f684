# ---- llm-interpret: everything above is the library's file, unchanged ----
from transformers.interpretation.surgery.methods import (
    bind as _bind_interpretation,
    without_surgery as _without_surgery,
)

_bind_interpretation(GenerationMixin)
# Guidance compares with a pass that has not seen the condition: the surgery is part of the condition.
UnbatchedClassifierFreeGuidanceLogitsProcessor.get_unconditional_logits = _without_surgery(
    UnbatchedClassifierFreeGuidanceLogitsProcessor.get_unconditional_logits
)
