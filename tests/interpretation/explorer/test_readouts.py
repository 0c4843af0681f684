"""The lens and scores, against plain passes of the model."""

from __future__ import annotations

import pytest
import torch
from explorer_client import Client
from reference import reference_pass
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import InterpretationPromptSpec
from transformers.interpretation.explorer import Explorer, readouts
from transformers.interpretation.mapping.affine import AffineMap, MappingError
from transformers.interpretation.mapping.lenses import Lens
from transformers.interpretation.mapping.probe import probe_of

PROMPT = "abcd"


def states_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), output_hidden_states=True).hidden_states


def head(model, state, *, normed):
    with torch.no_grad():
        return model.lm_head(state if normed else model.model.norm(state)).softmax(-1)


def test_the_logit_lens_is_the_models_own_norm_and_head(client, tiny):
    model, tokenizer = tiny
    ids = tokenizer.encode(PROMPT)
    status, answer = client.post("lens", {"prompt": PROMPT, "raw": True, "layers": "all", "tokens": "1,last", "k": 4})
    assert status == 200
    assert [(cell["layer"], cell["token"]) for cell in answer["cells"]] == [
        (layer, token) for layer in range(5) for token in (1, 3)
    ]
    states = states_of(model, ids)
    for cell in answer["cells"]:
        best = head(model, states[cell["layer"]][0, cell["token"]], normed=cell["layer"] == 4).topk(4)
        texts = [tokenizer.decode([token], skip_special_tokens=True) for token in best.indices]
        assert [one["text"] for one in cell["top"]] == texts
        assert [one["probability"] for one in cell["top"]] == pytest.approx(best.values.tolist(), abs=2e-6)


def test_a_fitted_lens_goes_through_its_map(tiny):
    model, tokenizer = tiny
    half = AffineMap(0.5 * torch.eye(32), torch.full((32,), 0.1))
    lens = Lens("tuned", {1: half}, probe_of(model))
    with Explorer(*tiny, lenses={"mine": lens}) as explorer:
        client = Client(explorer.url)
        assert client.get("models")[1]["lenses"] == ["logit", "mine"]
        asked = {"prompt": PROMPT, "raw": True, "tokens": "0", "k": 1, "lens": "mine"}
        status, answer = client.post("lens", {**asked, "layers": "1,4"})
        assert status == 200
        status, refused = client.post("lens", asked)
        assert (status, refused["detail"]) == (422, "the lens mine has no map of layers [0, 2, 3]; it has [1]")
    state = states_of(model, tokenizer.encode(PROMPT))[1][0, 0]
    best = head(model, 0.5 * state + 0.1, normed=False).max()
    assert answer["cells"][0]["top"][0]["probability"] == pytest.approx(float(best), abs=2e-6)


def test_another_models_lens_is_refused(tiny):
    others = tuple(1 + number for number in probe_of(tiny[0]))
    lens = Lens("tuned", {1: AffineMap(torch.eye(32), torch.zeros(32))}, others)
    with pytest.raises(MappingError):
        Explorer(*tiny, lenses={"mine": lens})


def test_a_lens_of_too_many_cells_is_refused(client, monkeypatch):
    monkeypatch.setattr(readouts, "MOST_CELLS", 9)
    status, answer = client.post("lens", {"prompt": PROMPT, "raw": True, "layers": "0,1"})
    assert status == 200 and len(answer["cells"]) == 8
    answer = client.post("lens", {"prompt": PROMPT, "raw": True})
    assert answer == (422, {"detail": "20 cells are more than 9: choose fewer of them"})


def test_a_small_vocabulary_has_fewer_tokens_to_show(client, monkeypatch):
    _, answer = client.post("lens", {"prompt": PROMPT, "raw": True, "layers": 1, "tokens": 0, "k": 50})
    assert len(answer["cells"][0]["top"]) == 50
    top = readouts._top(tiny_tokenizer(), torch.tensor([[0.0, 1.0, 2.0]]), 50)
    assert [round(one["probability"], 3) for one in top[0]] == [0.665, 0.245, 0.09]


def test_a_score_is_that_of_a_plain_pass(client, tiny):
    model, tokenizer = tiny
    text = "yes"
    asked = {"prompt": PROMPT, "raw": True, "layers": 1, "tokens": 2, "text": text, "insert_layer": 2}
    status, answer = client.post("score", {**asked, "interpretation_prompt": {"text": "x: _ is"}})
    assert status == 200

    prompt = InterpretationPromptSpec("custom", text="x: _ is").build(tokenizer)
    forced = tokenizer.encode(text)
    ids = [*prompt.input_ids, *forced]
    vector = states_of(model, tokenizer.encode(PROMPT))[1][:, 2:3]
    info = {2: (list(prompt.insert_locations), vector), "replacing_mode": "normalized", "overlay_strength": 1.0}
    with torch.no_grad():
        plain = model(torch.tensor([ids])).logits[0]
        _, operated = reference_pass(model, ids, info, len(prompt.input_ids))
    rows = range(len(prompt.input_ids) - 1, len(ids) - 1)
    logs = [
        [float(logits[row].log_softmax(-1)[token]) for row, token in zip(rows, forced)] for logits in (operated, plain)
    ]
    assert answer["log_ratio"] == pytest.approx(sum(logs[0]) - sum(logs[1]), abs=1e-4)
    assert answer["log_ratio"] != pytest.approx(0, abs=1e-3)
    assert [one["text"] for one in answer["tokens"]] == list(text)
    for one, with_it, without in zip(answer["tokens"], *(torch.tensor(some).exp().tolist() for some in logs)):
        assert one["probability"] == pytest.approx(with_it, abs=1e-5)
        assert one["without"] == pytest.approx(without, abs=1e-5)
        assert one["relevancy"] == pytest.approx(abs(with_it - without), abs=1e-5)
