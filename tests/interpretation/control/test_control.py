"""Control through explanations: losses and gradients against plain hooks, what training changes and what it leaves."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import InterpretationPrompt, interpret
from transformers.interpretation.control import ControlSettings, Judged, Matching, Target, control
from transformers.interpretation.control.objective import Reader, moved, source_ids, states_of, target_loss
from transformers.interpretation.control.tuning import tune
from transformers.interpretation.engine.sampling import Sampling
from transformers.interpretation.engine.settings import InterpretationSettings
from transformers.interpretation.models.adapters import Adapter

TOKENIZER = tiny_tokenizer()
PROMPT = InterpretationPrompt.from_text(TOKENIZER, "ab: _ _ is", name="short")
HOW = InterpretationSettings(insert_layer=1, max_new_tokens=4)
TEXT, LAYER = "Hello", 3
IDS = source_ids(TOKENIZER, TEXT)


@pytest.fixture
def model():
    return tiny_model(vocab_size=VOCABULARY).requires_grad_(False)


def by_hand(model, vector, texts):
    """Log probabilities of token ids behind the prompt with the vector in it, one text at a time."""
    found = []
    for text in texts:
        ids = torch.tensor([[*PROMPT.input_ids, *text]])

        def insert(_, args, kwargs):
            states = (args[0] if args else kwargs["hidden_states"]).clone()
            for place in PROMPT.insert_locations:
                states[0, place] = vector
            return ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})

        handle = model.model.layers[1].register_forward_pre_hook(insert, with_kwargs=True)
        try:
            likely = model(ids, use_cache=False).logits[0].log_softmax(-1)
        finally:
            handle.remove()
        start = len(PROMPT.input_ids) - 1
        found.append(sum(likely[start + n, token] for n, token in enumerate(text)))
    return torch.stack(found)


def changed(model):
    """A model with other weights in layer 1 that want gradients."""
    tuned = tune(model, [1], "full")
    with torch.no_grad():
        for parameter in tuned.trained.values():
            parameter.mul_(1.1)
    return tuned


def hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_the_loss_of_a_text_and_its_gradient(model):
    tuned = changed(model)
    vector = states_of(tuned.model, [IDS], [LAYER])[0][0, -1]
    loss = target_loss(Reader(model, TOKENIZER, PROMPT, HOW), vector, Target(TEXT, LAYER, "xyz"), Sampling(1), "0")
    found = torch.autograd.grad(loss, list(tuned.trained.values()))
    state = tuned.model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[LAYER][0, -1]
    expected = -by_hand(model, state, [TOKENIZER.encode("xyz", add_special_tokens=False)])[0] / 3
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    for mine, theirs in zip(found, torch.autograd.grad(expected, list(tuned.trained.values()))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
        assert mine.abs().max() > 0


def test_the_loss_of_a_reward_and_its_gradient(model):
    tuned = changed(model)
    vector = states_of(tuned.model, [IDS], [LAYER])[0][0, -1]
    seen = []

    def longest(texts):
        seen.extend(texts)
        return [len(set(text)) for text in texts]

    reader, sampling = Reader(model, TOKENIZER, PROMPT, HOW), Sampling(5, seed=3)
    loss = target_loss(reader, vector, Target(TEXT, LAYER, longest), sampling, "0")
    found = torch.autograd.grad(loss, list(tuned.trained.values()))
    state = tuned.model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[LAYER][0, -1]
    drawn = reader.samples(vector, LAYER, sampling, "0")
    assert [text for _, text in drawn] == seen
    worth = torch.tensor([float(len(set(text))) for text in seen])
    assert len(set(worth.tolist())) > 1
    likely = by_hand(model, state, [ids for ids, _ in drawn])
    lengths = torch.tensor([len(ids) for ids, _ in drawn])
    expected = -((worth - worth.mean()) * likely / lengths).mean()
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    for mine, theirs in zip(found, torch.autograd.grad(expected, list(tuned.trained.values()))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_how_far_references_move(model):
    tuned = changed(model)
    texts = [source_ids(TOKENIZER, text) for text in ("ab cd", "x")]
    now, before = (states_of(one, texts, [2, 3]) for one in (tuned.model, model))
    shares = []
    for ids in texts:
        states = [one(torch.tensor([ids]), output_hidden_states=True).hidden_states for one in (tuned.model, model)]
        tokens = range(1, len(ids)) if len(ids) > 1 else [0]
        each = [
            float((states[0][layer][0, token] - states[1][layer][0, token]).square().sum())
            / float(states[1][layer][0, token].square().sum())
            for layer in (2, 3)
            for token in tokens
        ]
        shares.append(sum(each) / len(each))
    assert float(moved(now, before)) == pytest.approx(sum(shares) / 2, rel=1e-4)
    assert float(moved(before, before)) == 0


@pytest.mark.parametrize("training", ["lora", "full"])
def test_the_untouched_model_says_of_the_changed_one_what_was_asked_for(model, training, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model(torch.tensor([IDS]), output_hidden_states=True)  # the library sets its own hooks at the first pass
    own_hooks = hooks(model)
    settings = ControlSettings((1, 2), training, steps=60, learning_rate=0.02, keep=0.1)
    steps = []
    options = {"settings": settings, "prompt": PROMPT, "how": HOW, "on_step": steps.append}
    tuned = control(model, TOKENIZER, [Target(TEXT, LAYER, "xyz")], references=["ab cd"], **options)
    said = {"interpretation_prompt": PROMPT, "insert_layer": 1, "guidance": 0, "deep_gain": 1, "max_new_tokens": 3}
    where = {"raw": True, "layers": LAYER, "tokens": "last"}
    (found,) = interpret(model, TOKENIZER, TEXT, source_model=tuned.model, **where, **said)
    (plain,) = interpret(model, TOKENIZER, TEXT, **where, **said)
    assert found.interpretation_text == "xyz" != plain.interpretation_text
    assert steps[-1].target < steps[0].target / 2
    assert [step.number for step in steps] == list(range(60))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert hooks(model) == own_hooks
    if training == "full":
        assert {name.split(".")[2] for name in tuned.trained} == {"1", "2"}
        assert {parameter.data_ptr() for parameter in tuned.model.model.layers[0].parameters()} == {
            parameter.data_ptr() for parameter in model.model.layers[0].parameters()
        }


def test_an_adapter_is_what_peft_reads(model, tmp_path):
    options = {"settings": ControlSettings((1,), steps=5, learning_rate=0.02), "prompt": PROMPT, "how": HOW}
    tuned = control(model, TOKENIZER, [Target(TEXT, LAYER, "xyz")], **options)
    tuned.save(tmp_path)
    ids = torch.tensor([IDS])
    logits = Adapter.find(tmp_path).on(model)(ids).logits
    assert torch.equal(logits, tuned.model(ids).logits)
    assert not torch.allclose(logits, model(ids).logits)


def test_layers_are_what_load_state_dict_reads(model, tmp_path):
    from safetensors.torch import load_file

    settings = ControlSettings((1,), "full", steps=5, learning_rate=0.02)
    tuned = control(model, TOKENIZER, [Target(TEXT, LAYER, "xyz")], settings=settings, prompt=PROMPT, how=HOW)
    tuned.save(tmp_path)
    other = tiny_model(vocab_size=VOCABULARY)
    missing = other.load_state_dict(load_file(tmp_path / "layers.safetensors"), strict=False)
    assert not missing.unexpected_keys
    assert torch.equal(other(torch.tensor([IDS])).logits, tuned.model(torch.tensor([IDS])).logits)


@pytest.mark.parametrize("wanted", ["xyz", Matching("[a-m]")])
@pytest.mark.parametrize("training", ["lora", "full"])
def test_a_stopped_training_goes_on_to_the_same_weights(model, training, wanted, tmp_path):
    settings = ControlSettings((1,), training, steps=7, learning_rate=0.02, samples=4)
    options = {"settings": settings, "references": ["ab cd", "x", "yz"], "prompt": PROMPT, "how": HOW, "every": 2}
    whole = control(model, TOKENIZER, [Target(TEXT, LAYER, wanted)], **options)

    def stop(step):
        if step.number == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        control(model, TOKENIZER, [Target(TEXT, LAYER, wanted)], checkpoints=tmp_path, on_step=stop, **options)
    steps = []
    rest = {"checkpoints": tmp_path, "on_step": lambda step: steps.append(step.number)}
    resumed = control(model, TOKENIZER, [Target(TEXT, LAYER, wanted)], **rest, **options)
    assert steps == [4, 5, 6]
    for name, parameter in whole.trained.items():
        assert torch.equal(parameter, resumed.trained[name])
    with pytest.raises(ValueError, match="cannot be resumed: it is of other data or settings"):
        control(model, TOKENIZER, [Target(TEXT, 2, wanted)], checkpoints=tmp_path, **options)


def test_rewards_become_more_frequent(model):
    settings = ControlSettings((0, 1, 2), "full", steps=40, learning_rate=0.02, samples=16, keep=0.0)
    wanted = Matching("[a-m]")
    tuned = control(model, TOKENIZER, [Target(TEXT, LAYER, wanted)], settings=settings, prompt=PROMPT, how=HOW)
    reader, sampling = Reader(model, TOKENIZER, PROMPT, HOW), Sampling(64, seed=99)

    def share(one):
        with torch.no_grad():
            vector = states_of(one, [IDS], [LAYER])[0][0, -1]
        return sum(wanted([text for _, text in reader.samples(vector, LAYER, sampling, "after")])) / 64

    assert share(tuned.model) > share(model) + 0.2


def test_the_judge_is_asked_for_yes_or_no(model):
    question = "Is it polite? {text}"
    found = Judged(question, model, TOKENIZER)(["so it is ", "no"])
    for text, share in zip(("so it is", "no"), found):
        ids = TOKENIZER.encode(f"Is it polite? {text}\nAnswer (Yes or No):", add_special_tokens=False)
        logits = model(torch.tensor([ids])).logits[0, -1]
        yes, no = (TOKENIZER.encode(f" {word}", add_special_tokens=False)[0] for word in ("Yes", "No"))
        assert share == pytest.approx(float(logits[[yes, no]].softmax(-1)[0]), abs=1e-5)
    with pytest.raises(ValueError, match=r"has no \{text\}"):
        Judged("Is it polite?", model, TOKENIZER)


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        (Target(TEXT, 5, "x"), {}, "layer 5 is out of range: 1 to 4"),
        (Target(TEXT, 2, "x", token=9), {}, "token 9 is out of range, of 5 tokens"),
        (Target(TEXT, 2, "x"), {"layers": (2, 3)}, r"layers \[2, 3\] lie behind hidden state 2"),
        (Target(TEXT, 2, "x"), {"layers": (1, 7)}, "choose among decoder layers 0 to 3"),
        (Target(TEXT, 2, "x"), {"training": "some"}, "training is 'some': use lora or full"),
    ],
)
def test_what_does_not_fit(model, target, settings, message):
    with pytest.raises(ValueError, match=message):
        control(model, TOKENIZER, [target], settings=ControlSettings(**settings), prompt=PROMPT, how=HOW)
    with pytest.raises(ValueError, match="no target"):
        control(model, TOKENIZER, [], prompt=PROMPT, how=HOW)


@pytest.mark.parametrize("change", [{"steps": 0}, {"learning_rate": 0}, {"keep": -1}, {"rank": 0}, {"samples": 0}])
def test_settings_that_cannot_be(change):
    with pytest.raises(ValueError):
        ControlSettings(**change)


def test_a_target_needs_a_layer_that_can_change():
    with pytest.raises(ValueError, match="layer 0; the first that can change is 1"):
        Target(TEXT, 0, "x")
    with pytest.raises(ValueError, match="need at least a letter"):
        Target(TEXT, 1, "")
