"""Training an adapter: the loss and its gradient by plain passes with inputs_embeds, resuming, and the file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model
from tiny_tokenizer import VOCABULARY, tiny_tokenizer
from transformers.interpretation import interpret
from transformers.interpretation.prompts.interpretation_prompt import InterpretationPromptSpec
from transformers.interpretation.readers.formats import find_reader
from transformers.interpretation.readers.labelled_vectors import LabelledVectors, held_out_share
from transformers.interpretation.readers.reader import ReaderError
from transformers.interpretation.readers.selfie_adapter import prompt_for
from transformers.interpretation.readers.training import KINDS, AdapterSettings, _beginning, _Task, train_adapter

TOKENIZER = tiny_tokenizer()
SPEC = InterpretationPromptSpec("short", text="a _ b _:", stop='"')
LABELS = ("cat", "a long label", "x", "dog", "ab")
SMALL = AdapterSettings(steps=7, batch_size=2, every=2, rank=3, low_rank_init_factor=0.5)


@pytest.fixture
def model():
    return tiny_model(vocab_size=VOCABULARY)


def labelled(*, layer: int | None = 2) -> LabelledVectors:
    vectors = 3 * torch.randn(5, 32, generator=torch.Generator().manual_seed(5)) + 1
    return LabelledVectors(vectors, LABELS, (False, True, False, False, True), layer)


def by_hand(model, vector, label, tensors, mean):
    """One label behind one prompt, with the soft token as the embedding of both placeholders."""
    x = vector - mean
    x = x / (x.norm() + 1e-8)
    token = tensors["log_scale"].exp() * x
    if "U" in tensors:
        token = token + tensors["V"] @ (tensors["U"].T @ x)
    token = token + tensors.get("bias", 0)
    before = TOKENIZER.encode("a _ b _:", add_special_tokens=True)
    places = [n for n, one in enumerate(before) if TOKENIZER.decode([one]) == "_"]
    assert len(places) == 2
    text = [*TOKENIZER.encode(label + '"', add_special_tokens=False), TOKENIZER.eos_token_id]
    rows = [model.get_input_embeddings().weight[one] for one in [*before, *text]]
    for place in places:
        rows[place] = token
    likely = model(inputs_embeds=torch.stack(rows)[None]).logits[0].log_softmax(-1)
    return sum(-likely[len(before) + n - 1, one] for n, one in enumerate(text)) / len(text)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_and_its_gradient(model, kind):
    data = labelled()
    projection = _beginning(replace(SMALL, kind=kind), 32, data.mean)
    built = SPEC.build(TOKENIZER)
    texts = [[*TOKENIZER.encode(label + '"', add_special_tokens=False), 2] for label in LABELS]
    loss = _Task(model, built, data.vectors, texts, 2).losses(projection, [1, 0, 4]).mean()
    mean = (data.vectors[0] + data.vectors[2] + data.vectors[3]) / 3
    tensors = dict(projection.tensors)
    expected = sum(by_hand(model, data.vectors[row], LABELS[row], tensors, mean) for row in (1, 0, 4)) / 3
    assert loss.item() == pytest.approx(expected.item(), abs=1e-4)
    found = torch.autograd.grad(loss, list(tensors.values()))
    for mine, theirs in zip(found, torch.autograd.grad(expected, list(tensors.values()))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)
        assert mine.abs().max() > 0


def test_no_token_counts_for_more_than_a_hundred_nats(model):
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(1000)
    texts = [[*TOKENIZER.encode(label, add_special_tokens=False), 2] for label in LABELS]
    task = _Task(model, SPEC.build(TOKENIZER), labelled().vectors, texts, 2)
    losses = task.losses(_beginning(SMALL, 32, None), range(5))
    assert losses.max() <= 100 and (losses > 50).any()


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_leaves_the_model_as_it_is(model, kind):
    before = {name: one.clone() for name, one in model.state_dict().items()}
    data = replace(labelled(), labels=("cat",) * 5)  # so that what is held out can be learned
    steps = []
    settings = AdapterSettings(kind, steps=40, batch_size=3, every=10, learning_rate=0.1)
    trained = train_adapter(model, TOKENIZER, data, prompt=SPEC, settings=settings, on_step=steps.append)
    assert [step.number for step in steps] == list(range(40))
    assert [step.number for step in steps if step.validation is not None] == [9, 19, 29, 39]
    assert trained.loss == min(step.validation for step in steps if step.validation is not None)
    assert trained.loss < trained.loss_before
    assert {name for name, one in trained.projection.tensors.items() if one.requires_grad} == set()
    for name, one in model.state_dict().items():
        assert torch.equal(one, before[name])
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_the_best_state_is_kept_and_not_the_last(model):
    steps = []
    settings = AdapterSettings(steps=30, batch_size=3, every=3, learning_rate=2.0)
    trained = train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=settings, on_step=steps.append)
    seen = {0: trained.loss_before} | {s.number + 1: s.validation for s in steps if s.validation is not None}
    assert trained.loss == min(seen.values()) < seen[30]
    assert trained.step == min(seen, key=lambda step: seen[step])
    texts = [[*TOKENIZER.encode(label + '"', add_special_tokens=False), 2] for label in LABELS]
    task = _Task(model, SPEC.build(TOKENIZER), labelled().vectors, texts, 3)
    assert task.validation(trained.projection, [1, 4]) == trained.loss


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_training_goes_on_to_the_same_adapter(model, kind, tmp_path):
    settings = replace(SMALL, kind=kind)
    whole = train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=settings)

    def stop(step):
        if step.number == 5:
            raise KeyboardInterrupt

    given = {"prompt": SPEC, "settings": settings, "checkpoint": tmp_path / "reader.checkpoint"}
    with pytest.raises(KeyboardInterrupt):
        train_adapter(model, TOKENIZER, labelled(), on_step=stop, **given)
    steps = []
    resumed = train_adapter(model, TOKENIZER, labelled(), on_step=lambda step: steps.append(step.number), **given)
    assert steps == [4, 5, 6]
    assert (whole.step, whole.loss, whole.loss_before) == (resumed.step, resumed.loss, resumed.loss_before)
    for name, one in whole.projection.tensors.items():
        assert torch.equal(one, resumed.projection.tensors[name])
    other = replace(labelled(), labels=("other", *LABELS[1:]))
    with pytest.raises(ValueError, match="cannot be resumed: it is of other data or settings"):
        train_adapter(model, TOKENIZER, other, **given)


def test_another_seed_is_another_training(model):
    found = [
        train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=replace(SMALL, seed=seed)).projection
        for seed in (0, 1)
    ]
    assert not torch.equal(found[0].tensors["bias"], found[1].tensors["bias"])


def test_learning_rate_and_rows_of_a_step():
    settings = AdapterSettings(steps=30, batch_size=3)
    rates = [settings.rate(step) for step in range(30)]
    assert rates[0] == pytest.approx(0.001) and max(rates) == rates[10] == 0.01
    assert rates[20] == pytest.approx(0.005) and 0 < rates[29] < 0.0001
    seen = [row for step in range(4) for row in settings.rows(step, [5, 7, 8, 9])]
    assert [sorted(seen[first : first + 4]) for first in (0, 4, 8)] == [[5, 7, 8, 9]] * 3


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_the_file_is_found_and_inserts_the_formula(model, kind, tmp_path):
    """A tokenizer whose prompt was never published: prompt and layer are the file's own."""
    settings = replace(SMALL, kind=kind)
    trained = train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=settings)
    path = tmp_path / "mine.safetensors"
    trained.save(path, model="tiny")
    reader = find_reader(path)
    words = kind.replace("_", " ")
    assert reader.description == (
        f"SelfIE adapter mine.safetensors: {words}, hidden size 32, trained on tiny, of layer 2 less its mean"
    )
    fitted = reader.fit(model, TOKENIZER)
    assert (fitted.layers, fitted.prompt, fitted.insert_layer) == ("2", SPEC, 0)
    (found,) = interpret(model, TOKENIZER, "Hi!", raw=True, tokens="last", max_new_tokens=4, **fitted.options)
    ids = TOKENIZER.encode("Hi!", add_special_tokens=False)
    state = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -1]
    tensors, mean = load_file(path), load_file(tmp_path / "mean-vectors.safetensors")["layer_1"]
    assert torch.allclose(mean, labelled().vectors[[0, 2, 3]].mean(0))
    x = (state - mean) / (state - mean).norm()
    token = tensors["log_scale"].exp() * x + tensors.get("bias", torch.zeros(32))
    token = token + (tensors["V"] @ tensors["U"].T @ x if "U" in tensors else 0)
    assert torch.allclose(fitted.mapping(state[None])[0], token, atol=1e-5)
    before = SPEC.build(TOKENIZER)
    rows = model.get_input_embeddings().weight[list(before.input_ids)].clone()
    rows[list(before.insert_locations)] = token
    said = []
    for _ in range(4):
        said.append(int(model(inputs_embeds=rows[None]).logits[0, -1].argmax()))
        rows = torch.cat([rows, model.get_input_embeddings().weight[said[-1:]]])
    assert list(found.interpretation) == said[: len(found.interpretation)]


def test_the_layout_is_the_published_one(model, tmp_path):
    settings = replace(SMALL, kind="scalar_affine_plus_low_rank")
    trained = train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=settings)
    trained.save(tmp_path / "mine.safetensors", model="tiny")
    with safe_open(str(tmp_path / "mine.safetensors"), "pt") as file:
        header, shapes = file.metadata(), {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
    assert shapes == {"log_scale": (1,), "bias": (32,), "U": (32, 3), "V": (32, 3)}
    assert json.loads(header.pop("config_json")) == {
        "projection": {
            "type": "scalar_affine_plus_low_rank",
            "normalize_input": True,
            "init_scale": 5.0,
            "low_rank_rank": 3,
            "low_rank_init_factor": 0.5,
        }
    }
    own = json.loads(header.pop("llm_interpret"))
    assert own == {
        "prompt": {"name": "short", "text": "a _ b _:", "stop": '"'},
        "layer": 2,
        "mean": True,
        "model": "tiny",
    }
    assert header == {"model_dim": "32", "global_step": str(trained.step), "best_val_loss": str(trained.loss)}


def test_vectors_of_no_layer_have_no_mean(model, tmp_path):
    data = labelled(layer=None)
    with pytest.raises(ValueError, match="a mean belongs to a layer"):
        train_adapter(model, TOKENIZER, data, prompt=SPEC, settings=SMALL)
    settings = replace(SMALL, subtract_mean=False, kind="scale_only")
    trained = train_adapter(model, TOKENIZER, data, prompt=SPEC, settings=settings)
    trained.save(tmp_path / "mine.safetensors", model="tiny")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["mine.safetensors"]
    reader = find_reader(tmp_path / "mine.safetensors")
    with pytest.raises(ReaderError, match="give layers"):
        reader.fit(model, TOKENIZER)
    made = reader.fit(model, TOKENIZER, "3").mapping(data.vectors)
    scale = float(load_file(tmp_path / "mine.safetensors")["log_scale"].exp())
    assert torch.allclose(made, scale * torch.nn.functional.normalize(data.vectors), atol=1e-5)


def test_a_mean_is_never_mistaken_for_another(model, tmp_path):
    trained = train_adapter(model, TOKENIZER, labelled(), prompt=SPEC, settings=SMALL)
    trained.save(tmp_path / "one.safetensors", model="tiny")
    trained.save(tmp_path / "two.safetensors", model="tiny")  # of the same vectors
    other = train_adapter(model, TOKENIZER, labelled(layer=3), prompt=SPEC, settings=SMALL)
    with pytest.raises(ReaderError, match=r"found the mean of other vectors in .*; name another folder"):
        other.save(tmp_path / "three.safetensors", model="tiny")
    assert not (tmp_path / "three.safetensors").exists()
    first = train_adapter(model, TOKENIZER, labelled(layer=0), prompt=SPEC, settings=SMALL)
    with pytest.raises(ReaderError, match="found a mean of layer 0, expected one of a layer from 1 on"):
        first.save(tmp_path / "new" / "reader.safetensors", model="tiny")
    save_file({"layer_2": torch.ones(32)}, tmp_path / "mean-vectors.safetensors")
    with pytest.raises(ReaderError, match="found the mean of layer 3 beside it, expected that of 2"):
        find_reader(tmp_path / "one.safetensors")
    (tmp_path / "mean-vectors.safetensors").unlink()
    with pytest.raises(ReaderError, match=r"found no mean-vectors\.safetensors beside it"):
        find_reader(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("{", "found llm_interpret in its header that is not JSON"),
        ("[]", r"found \[\] in llm_interpret of its header, expected \['layer', 'mean', 'model', 'prompt'\]"),
        ('{"layer": 2}', r"found \['layer'\] in llm_interpret"),
        ('{"prompt": {}, "layer": "2", "mean": false, "model": "x"}', "found layer '2' in llm_interpret"),
        ('{"prompt": {}, "layer": true, "mean": false, "model": "x"}', "found layer True in llm_interpret"),
        ('{"prompt": {"txt": "x"}, "layer": 2, "mean": false, "model": "x"}', "unknown key 'txt'"),
        ('{"prompt": {"text": "x"}, "layer": 2, "mean": false, "model": "x"}', "there is no placeholder"),
    ],
)
def test_a_header_of_ours_that_says_nonsense(tmp_path, own, message):
    header = {"projection_type": "scale_only", "model_dim": "32", "llm_interpret": own}
    save_file({"log_scale": torch.zeros(1)}, tmp_path / "x.safetensors", metadata=header)
    with pytest.raises(ReaderError, match=message) as caught:
        find_reader(tmp_path / "x.safetensors")
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_prompt_where_none_was_published():
    plain, chat = (prompt_for(one) for one in (TOKENIZER, tiny_tokenizer(chat=True)))
    asked = 'What is the meaning of "{vector}"?'
    assert plain.text == f'{asked}\nThe meaning of "{{vector}}" is "'
    assert chat.text == f'<s>user:{asked}</s><s>assistant: The meaning of "{{vector}}" is "'
    for spec in (plain, chat):
        assert len(spec.build(TOKENIZER).insert_locations) == 2 and spec.stop == '"'


def test_a_share_is_held_out():
    assert sum(held_out_share(40, 0.25, 0)) == 10 and sum(held_out_share(3, 0.1, 0)) == 1
    assert held_out_share(40, 0.25, 0) != held_out_share(40, 0.25, 1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        held_out_share(5, 1.0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": torch.zeros(5)}, r"\[5\], expected float32 \[n, hidden\]"),
        ({"labels": ("a",)}, "5 vectors, 1 labels"),
        ({"labels": ("a", " ", "b", "c", "d")}, "label 1 is empty"),
        ({"held_out": (True,) * 5}, "5 of 5 labelled vectors are held out"),
        ({"held_out": (False,) * 5}, "0 of 5 labelled vectors are held out"),
        ({"vectors": torch.full((5, 32), float("nan"))}, r"vector 0 \('cat'\) has NaN"),
    ],
)
def test_labelled_vectors_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(labelled(), **change)


@pytest.mark.parametrize(
    "change",
    [{"kind": "full_rank"}, {"steps": 0}, {"rank": 0}, {"learning_rate": 0}, {"clip": -1}, {"weight_decay": -1}],
)
def test_settings_that_cannot_be(change):
    with pytest.raises(ValueError):
        AdapterSettings(**change)


def test_what_does_not_fit_the_model(model):
    with pytest.raises(ValueError, match="found vectors of size 32, expected the model's hidden size 64"):
        train_adapter(tiny_model(hidden_size=64, vocab_size=VOCABULARY), TOKENIZER, labelled(), prompt=SPEC)
    asked = InterpretationPromptSpec("ask", text="_ {question}").asking("Why?")
    with pytest.raises(ValueError, match="'ask' has a question"):
        train_adapter(model, TOKENIZER, labelled(), prompt=asked)
    with torch.no_grad():
        model.get_output_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 0: the loss is nan"):
        train_adapter(model, TOKENIZER, labelled(), prompt=SPEC)
    with pytest.raises(ValueError, match="training mode"):
        train_adapter(model.train(), TOKENIZER, labelled(), prompt=SPEC)
