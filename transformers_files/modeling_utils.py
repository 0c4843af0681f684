# ---- llm-interpret: everything above is the library's file, unchanged ----
from transformers.interpretation.surgery.methods import forward_interpret as _forward_interpret

# Decoders without a head (model.model) have it too; classes that generate have the other two methods besides.
PreTrainedModel.forward_interpret = _forward_interpret
