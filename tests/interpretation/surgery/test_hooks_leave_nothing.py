"""After surgery, and for other threads, the model is the plain one."""

from __future__ import annotations

import threading

import pytest
import torch
from three_rows import infos, plan_for
from tiny_models import tiny_model
from transformers.interpretation.models.families import decoder_layers
from transformers.interpretation.surgery.hooks import (
    surgery,
    surgery_disabled,
)


def hooks_of(model) -> list[int]:
    return [
        key
        for module in model.modules()
        for hooks in (module._forward_pre_hooks, module._forward_hooks)
        for key in hooks
    ]


@pytest.mark.parametrize("ending", ["success", "error", "interrupt"])
def test_nothing_stays_behind(model, input_ids, ending):
    with torch.no_grad():
        plain = model(input_ids, output_hidden_states=True).logits  # some versions set hooks of their own here
    before = hooks_of(model)

    def run():
        with torch.no_grad(), surgery(model, plan_for(infos())):
            assert len(hooks_of(model)) == len(before) + 4  # around the decoder: two; layers of the plan: two
            model(input_ids)
            if ending != "success":
                raise {"error": ArithmeticError, "interrupt": KeyboardInterrupt}[ending]

    if ending == "success":
        run()
    else:
        with pytest.raises((ArithmeticError, KeyboardInterrupt)):
            run()
    assert hooks_of(model) == before
    with torch.no_grad():
        assert torch.equal(model(input_ids).logits, plain)


@pytest.mark.parametrize("moment", ["between two hooks", "before a hook is taken away"])
def test_an_interrupt_among_the_hooks_leaves_the_model_plain(input_ids, monkeypatch, moment):
    model = tiny_model()
    with torch.no_grad():
        plain = model(input_ids, output_hidden_states=True).logits
    before = hooks_of(model)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    where, what = {
        "between two hooks": (decoder_layers(model)[2], "register_forward_pre_hook"),
        "before a hook is taken away": (torch.utils.hooks.RemovableHandle, "remove"),
    }[moment]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(where, what, interrupted)
        with torch.no_grad(), surgery(model, plan_for(infos())):
            model(input_ids)
    if moment == "between two hooks":
        assert hooks_of(model) == before
    with torch.no_grad():
        assert torch.equal(model(input_ids).logits, plain)


def test_unoperated_passes_are_plain(model, input_ids):
    with torch.no_grad():
        plain = model(input_ids, output_hidden_states=True)
        with surgery(model, plan_for(infos())):
            operated = model(input_ids).logits
            with surgery_disabled():
                inside = model(input_ids, output_hidden_states=True)
    assert torch.equal(inside.logits, plain.logits)
    assert all(torch.equal(a, b) for a, b in zip(inside.hidden_states, plain.hidden_states))
    assert not torch.equal(operated, plain.logits)


def test_other_threads_see_the_plain_model(model, input_ids):
    seen = {}

    def other():
        with torch.no_grad():
            seen["other"] = model(input_ids).logits

    with torch.no_grad():
        plain = model(input_ids).logits
        with surgery(model, plan_for(infos())):
            operated = model(input_ids).logits
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
    torch.testing.assert_close(seen["other"], plain)
    assert not torch.allclose(operated, plain, atol=1e-3)
