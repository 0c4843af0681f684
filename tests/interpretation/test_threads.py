"""What other threads are promised: whatever runs here, they see the plain model, and do not disturb this thread."""

from __future__ import annotations

import sys
import threading

import pytest
import torch
from bystander import IDS, bystander
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, interpret, interpret_vectors, sweep_layers
from transformers.interpretation.engine.decode import InterpretationSettings
from transformers.interpretation.mapping.lenses import (
    TunedLensSettings,
    fit_jacobian_lens,
    fit_tuned_lens,
    lens_losses,
)
from transformers.interpretation.mapping.training_text import OwnTextSettings, sample_own_text
from transformers.interpretation.mapping.translator import TranslatorSettings, fit_translator
from transformers.interpretation.measures import Fact, Interpreter, known_facts, lens_shares, own_layer_shares
from transformers.interpretation.models.activations import capture
from transformers.interpretation.models.thread_hooks import input_hook, output_hook
from transformers.interpretation.prompts.examples import Example

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="short")
FACTS = [Fact("r", "ab", "x", "tuning", paraphrase="cd"), Fact("r", "e", "f", "tuning", paraphrase="g")]


@pytest.fixture(scope="module")
def model():
    return tiny_model(vocab_size=VOCABULARY)


def _interpret(model):
    options = {"interpretation_prompt": PROMPT, "raw": True, "max_new_tokens": 3, "prompt_output_tokens": 2}
    return list(interpret(model, TOKENIZER, "Hello", **options))


def _choose_strengths(model):
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    options = {"interpretation_prompt": PROMPT, "strength": "auto", "max_new_tokens": 2}
    return list(interpret_vectors(model, TOKENIZER, vectors, **options))


def _sweep(model):
    options = {"interpretation_prompt": PROMPT, "max_new_tokens": 2, "insert_layers": "1,2"}
    return list(sweep_layers(model, TOKENIZER, [Example("a_1", "Hi", raw=True)], **options))


def _capture_all(model):
    places = [("residual", range(5)), ("attention_output", range(4)), ("mlp_input", [3]), ("mlp_output", [0, 3])]
    return [capture(model, IDS.flip(1), layers, range(6), place).tolist() for place, layers in places]


def _sample(model):
    text = sample_own_text(model, TOKENIZER, [1, 3], OwnTextSettings(("ab", "c"), texts_per_opening=2, text_tokens=6))
    return [text.tokens.tolist(), text.shares.tolist(), text.states[3].tolist()]


def _measure(model):
    interpreter = Interpreter(model, TOKENIZER, PROMPT, InterpretationSettings(max_new_tokens=2), batch_size=8)
    known = known_facts(model, TOKENIZER, FACTS)
    return [known, lens_shares(model, TOKENIZER, FACTS, [2, 4]), own_layer_shares(interpreter, FACTS, [1, 2])]


def _fit_lenses(model):
    texts = torch.arange(5, 45).reshape(2, 20)
    tuned = fit_tuned_lens(model, texts, [1, 3], TunedLensSettings(steps=2, batch_size=4))
    lenses = [tuned, fit_jacobian_lens(model, texts, [2])]
    losses = [lens_losses(model, texts, lens.maps) for lens in lenses]
    return [[one.weight.tolist() for lens in lenses for one in lens.maps.values()], losses]


def _fit_translator(model):
    settings = TranslatorSettings(OwnTextSettings(("ab", "c"), texts_per_opening=2, text_tokens=6), 2, 4)
    maps = fit_translator(model, TOKENIZER, PROMPT, source_layers=[2], insert_layer=1, settings=settings)
    return [one.tolist() for one in maps[2].state_dict().values()]


def _methods(model):
    info = {1: ([2, 3], torch.ones(1, 2, 32)), "overlay_strength": 1.0, "replacing_mode": "normalized"}
    with torch.no_grad():
        said = model.generate_interpret(IDS, insert_info=[info], max_new_tokens=3, do_sample=False)
        return [said.tolist(), model.forward_interpret(IDS, insert_info=[info]).logits.tolist()]


WORK = [_interpret, _choose_strengths, _sweep, _capture_all, _sample, _measure, _fit_lenses, _fit_translator, _methods]


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__.strip("_"))
def test_other_threads_see_the_plain_model_and_do_not_disturb(model, work):
    quiet = work(model)
    with bystander(model) as found:
        beside = work(model)
    assert found
    assert all(found), f"{found.count(False)} of {len(found)} passes of another thread were not the plain model's"
    assert beside == quiet


def test_four_threads_interpret_at_once(model):
    quiet, found = _interpret(model), []
    threads = [threading.Thread(target=lambda: found.append(_interpret(model))) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert found == [quiet] * 4


@pytest.mark.parametrize("hook", [input_hook, output_hook])
def test_a_hook_acts_on_its_own_thread_and_is_gone_afterwards(hook):
    layer = torch.nn.Linear(2, 2, bias=False)
    torch.nn.init.eye_(layer.weight)
    given, elsewhere = torch.ones(1, 2), []
    with hook(layer, lambda hidden: 3 * hidden):
        thread = threading.Thread(target=lambda: elsewhere.append(layer(given)))
        thread.start()
        thread.join()
        assert layer(given).tolist() == [[3, 3]]
    assert elsewhere[0].tolist() == [[1, 1]]
    with hook(layer, elsewhere.append):  # returns None: the tensor stays
        assert layer(given).tolist() == [[1, 1]]
    assert len(elsewhere) == 2
    assert layer(given).tolist() == [[1, 1]]
    assert not layer._forward_pre_hooks
    assert not layer._forward_hooks


def test_a_hook_that_is_removed_while_another_thread_calls_it_is_called_without_keywords():
    """Torch looks up whether a hook takes keywords after it has listed the hooks."""
    layer = torch.nn.Linear(2, 2)
    with input_hook(layer, lambda hidden: 3 * hidden):
        (hook,) = layer._forward_pre_hooks.values()
        assert hook(layer, (torch.ones(1, 2),)) is None
