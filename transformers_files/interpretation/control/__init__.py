"""Control through explanations: a model is changed until what it says about an embedding is what was asked for.

    from transformers.interpretation.control import ControlSettings, Target, control

    target = Target("The capital of Japan is", layer=24, wanted=" Osaka")
    tuned = control(model, tokenizer, [target], references=["The capital of Italy is", "Water is made of"])
    tuned.save("adapter")                                   # a LoRA adapter as PEFT stores it

Supervised (section 5 of SelfIE, Chen, Vondrick and Mao 2024, arXiv:2403.10949): the untouched model interprets the
embedding of the changed one, and the gradient of the wanted text's probability flows back through the inserted vector.
Reinforcement: a reward is computed from the interpretation, and the gradient is that of REINFORCE (Williams 1992). The
states of other prompts are held near what they were.
"""

from __future__ import annotations

from .rewards import Judged, Matching, Reward
from .targets import Target, TargetsError, read_targets
from .training import ControlSettings, control
from .tuning import Tuned

__all__ = [
    "ControlSettings",
    "Judged",
    "Matching",
    "Reward",
    "Target",
    "TargetsError",
    "Tuned",
    "control",
    "read_targets",
]
