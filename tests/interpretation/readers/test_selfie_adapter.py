"""SelfIE adapters, written as that project writes them, against what its code would insert."""

from __future__ import annotations

import json

import pytest
import torch
from reference import reference_greedy
from safetensors.torch import save_file
from tiny_folder import short_run, write_tiny_folder
from tiny_models import tiny_model
from tiny_tokenizer import tiny_tokenizer
from transformers.interpretation import interpret, interpret_vectors, read_csv
from transformers.interpretation.readers.formats import find_reader
from transformers.interpretation.readers.reader import ReaderError
from transformers.interpretation.runs.manifest import read_manifest
from transformers.interpretation.runs.preparation import RequestError, check, prepare
from transformers.interpretation.runs.runner import run

MARK = "<|fim_pad|>"
TEXT = (
    f'<|im_start|>user\nWhat is the meaning of "{MARK}"?<|im_end|>\n<|im_start|>assistant\nThe meaning of "{MARK}" is "'
)
SHAPES = {"log_scale": (1,), "bias": (32,), "U": (32, 3), "V": (32, 3), "weight": (32, 32)}
TYPES = {
    "scale_only": ["log_scale"],
    "scalar_affine": ["log_scale", "bias"],
    "low_rank_only": ["U", "V", "bias"],
    "scalar_affine_plus_low_rank": ["log_scale", "U", "V", "bias"],
    "full_rank": ["weight", "bias"],
}


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": [MARK]})
    return tokenizer


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(vocab_size=len(tokenizer), eos_token_id=None)


def write(folder, kind="scalar_affine", name="sae.safetensors", *, header=None, extra=None):
    generator = torch.Generator().manual_seed(len(kind))
    tensors = {part: torch.randn(SHAPES[part], generator=generator) / 2 for part in TYPES.get(kind, ["bias"])}
    config = {"projection": {"type": kind, "normalize_input": True, "init_scale": 5}}
    header = {"config_json": json.dumps(config), "model_dim": "32"} if header is None else header
    save_file(tensors | (extra or {}), folder / name, metadata=header)
    return folder / name, tensors


def soft_token(vector, tensors, *, normalize=True):
    """What the project's code makes of one vector."""
    x = vector / (torch.linalg.vector_norm(vector) + 1e-8) if normalize else vector
    made = torch.zeros(32)
    if "log_scale" in tensors:
        made += float(tensors["log_scale"].exp()) * x
    if "U" in tensors:
        made += sum((x @ tensors["U"][:, r]) * tensors["V"][:, r] for r in range(3))
    if "weight" in tensors:
        made += tensors["weight"] @ x
    return made + tensors.get("bias", 0)


def said(model, tokenizer, token, n):
    """The continuation with the soft token as both placeholders' embedding."""
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    places = [n for n, one in enumerate(ids) if one == tokenizer.convert_tokens_to_ids(MARK)]
    assert len(places) == 2
    info = {0: (places, token.expand(1, 2, -1)), "overlay_strength": 1.0, "replacing_mode": "normalized"}
    return reference_greedy(model, ids, info, n)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_inserts_what_the_project_would(model, tokenizer, tmp_path, kind):
    path, tensors = write(tmp_path, kind)
    fitted = find_reader(path).fit(model, tokenizer, "2")
    vectors = 3 * torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    expected = [soft_token(vector, tensors) for vector in vectors]
    assert torch.allclose(fitted.mapping(vectors), torch.stack(expected), atol=1e-5)
    options = {name: value for name, value in fitted.options.items() if name not in ("layers", "deep_gain")}
    found = interpret_vectors(model, tokenizer, vectors, max_new_tokens=4, batch_size=2, **options)
    texts = []
    for record, token in zip(found, expected):
        tokens = said(model, tokenizer, token, 4)
        assert list(record.interpretation) == tokens[: len(record.interpretation)]
        texts.append(tuple(tokens))
    assert len(set(texts)) > 1


def test_flat_keys_and_no_normalising(model, tokenizer, tmp_path):
    header = {"projection_type": "scalar_affine", "normalize_input": "false"}
    path, tensors = write(tmp_path, header=header)
    vector = torch.randn(32, generator=torch.Generator().manual_seed(1))
    made = find_reader(path).fit(model, tokenizer, "2").mapping(vector[None])[0]
    assert torch.allclose(made, soft_token(vector, tensors, normalize=False), atol=1e-5)


@torch.no_grad()
def test_the_mean_beside_it_says_the_layer(model, tokenizer, tmp_path):
    path, tensors = write(tmp_path, name="wikipedia-scalar-affine.safetensors")
    mean = torch.randn(32, generator=torch.Generator().manual_seed(4))
    save_file({"layer_1": mean}, tmp_path / "mean-vectors.safetensors")
    reader = find_reader(path)
    assert reader.description == (
        "SelfIE adapter wikipedia-scalar-affine.safetensors: scalar affine, hidden size 32, of layer 2 less its mean"
    )
    fitted = reader.fit(model, tokenizer)
    (found,) = interpret(
        model, tokenizer, "Hi!", raw=True, tokens="last", max_new_tokens=4, batch_size=2, **fitted.options
    )
    ids = torch.tensor([tokenizer.encode("Hi!", add_special_tokens=False)])
    state = model.model(ids, output_hidden_states=True).hidden_states[2][0, -1]
    assert found.layer_idx == 2
    assert list(found.interpretation) == said(model, tokenizer, soft_token(state - mean, tensors), 4)
    with pytest.raises(ReaderError, match="found layers 3, expected 2"):
        reader.fit(model, tokenizer, "3")


def test_a_run_with_a_reader(model, tokenizer, tmp_path):
    folder = write_tiny_folder(tmp_path / "model", model=model)
    tokenizer.save_pretrained(folder)
    path, _ = write(tmp_path)
    examples = {"examples": [{"prompt": "Hi!", "raw": True}]}
    options = {"reader": str(path), "layers": "2", "output": tmp_path / "out.csv"}
    options["interpretation_prompts"] = ("describe",)
    request = short_run(folder, tmp_path, examples, **options)
    prepared = prepare(request)
    assert "recognised SelfIE adapter sae.safetensors: scalar affine, hidden size 32" in prepared.notes()
    list(run(prepared))
    fitted = find_reader(path).fit(model, tokenizer, "2")
    expected = interpret(model, tokenizer, "Hi!", raw=True, max_new_tokens=3, batch_size=5, **fitted.options)
    assert [one.interpretation for one in read_csv(request.output)] == [one.interpretation for one in expected]
    assert read_manifest(request.output).identity["reader"] == find_reader(path).digest
    with pytest.raises(RequestError, match="the reader sets insert_layer: leave it out"):
        check(short_run(folder, tmp_path, examples, **options | {"insert_layer": 1}))
    with pytest.raises(RequestError, match="give layers"):
        prepare(short_run(folder, tmp_path, examples, **options | {"layers": None}))


def test_a_run_of_vectors_with_a_reader(model, tokenizer, tmp_path):
    """The layer is the sparse autoencoder's own; of other files it has to be given."""
    folder = write_tiny_folder(tmp_path / "model", model=model)
    tokenizer.save_pretrained(folder)
    path, tensors = write(tmp_path)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(2))
    (tmp_path / "sae").mkdir()
    (tmp_path / "sae" / "cfg.json").write_text(json.dumps({"hook_name": "blocks.1.hook_resid_post"}))
    save_file({"W_dec": vectors}, tmp_path / "sae" / "sae_weights.safetensors")
    options = {"reader": str(path), "vectors": tmp_path / "sae", "examples": None, "output": tmp_path / "out.csv"}
    options["interpretation_prompts"] = ("describe",)
    request = short_run(folder, tmp_path, {}, **options)
    list(run(prepare(request)))
    found = read_csv(request.output)
    assert len(found) == 3
    for record, vector in zip(found, vectors):
        wanted = said(model, tokenizer, soft_token(vector, tensors), 3)
        assert list(record.interpretation) == wanted[: len(record.interpretation)]
    plain = {"vectors": tmp_path / "sae" / "sae_weights.safetensors", "output": tmp_path / "again.csv"}
    with pytest.raises(RequestError, match="give layers"):
        prepare(short_run(folder, tmp_path, {}, **options | plain))
    request = short_run(folder, tmp_path, {}, **options | plain | {"layers": "2"})
    list(run(prepare(request)))
    assert request.output.read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_what_does_not_fit_is_one_line_with_the_file(model, tokenizer, tmp_path):
    def read(**given):
        return find_reader(write(tmp_path, **given)[0])

    config = json.dumps({"projection": {"type": "bilinear"}})
    cases = [
        (lambda: read(header={}), "found projection type None in its header, expected scale_only, "),
        (lambda: read(header={"config_json": config}), "found projection type 'bilinear'"),
        (lambda: read(header={"config_json": "{"}), "config_json without a projection's type"),
        (lambda: read(kind="scale_only", header={"projection_type": "scale_only"}), "found no model_dim"),
        (lambda: read(extra={"U": torch.ones(32, 2)}), r"found tensors \['U', 'bias', 'log_scale'\], expected"),
        (lambda: read(header={"projection_type": "scalar_affine", "model_dim": "64"}), r"size \[32\], expected 64"),
        (lambda: read(name="wikipedia.safetensors"), "found no mean-vectors.safetensors beside it"),
        (
            lambda: read().fit(tiny_model(hidden_size=64), tokenizer, "2"),
            "found hidden size 32, expected the model's 64",
        ),
        (lambda: read().fit(model, tiny_tokenizer(), "2"), "found a tokenizer in which none of"),
    ]
    for call, message in cases:
        with pytest.raises(ReaderError, match=message) as caught:
            call()
        assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_files_are_named_and_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"x" * 50)
    (tmp_path / "old.pt").write_bytes(b"")
    (tmp_path / "text.txt").write_text("")
    for folder, files in {"nla": ["nla_meta.yaml"], "lens": ["params.pt", "config.json"], "empty": []}.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).touch()
    for name, message in {
        "x.safetensors": "cannot be read as safetensors",
        "old.pt": "pickled",
        "text.txt": "found .txt of no known format; expected one of: SelfIE adapter, Activation Oracle",
        "nla": "natural-language autoencoder",
        "lens": "a tuned lens, a map for logits and no reader",
        "empty": "found a folder of no known format",
        "nowhere": "there is no such file or folder",
    }.items():
        with pytest.raises(ReaderError, match=message) as caught:
            find_reader(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)


def test_as_an_argument_of_interpret(model, tokenizer, tmp_path):
    path, _ = write(tmp_path)
    asked = {"tokens": "last", "max_new_tokens": 4, "raw": True}
    fitted = find_reader(path).fit(model, tokenizer, "2")
    expected = interpret(model, tokenizer, "Hello", **asked, **fitted.options)
    for reader in (path, str(path), find_reader(path)):
        assert list(interpret(model, tokenizer, "Hello", layers=2, reader=reader, **asked)) == list(expected)
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    options = fitted.options
    del options["layers"], options["deep_gain"]
    of_vectors = interpret_vectors(model, tokenizer, vectors, max_new_tokens=4, **options)
    assert list(interpret_vectors(model, tokenizer, vectors, max_new_tokens=4, reader=path, layer=2)) == list(
        of_vectors
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"guidance": 0.0}, "the reader sets guidance: leave it out"),
        ({"insert_layer": 1, "mapping": {}}, "the reader sets insert_layer, mapping: leave them out"),
        ({"layers": None}, "no file says of which layer its vectors are; give layers"),
    ],
)
def test_what_is_said_beside_a_reader_is_refused(model, tokenizer, tmp_path, more, message):
    path, _ = write(tmp_path)
    with pytest.raises(ValueError, match=message):
        interpret(model, tokenizer, "Hello", **{"layers": 2, "reader": path} | more)


def test_by_its_id_on_the_hub(model, tokenizer, tmp_path, monkeypatch):
    """Only the files that are needed are asked for; one clear line where there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    snapshot = tmp_path / "models--somebody--adapters" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    snapshot.mkdir(parents=True)
    path, _ = write(snapshot)
    calls = []

    def download(name, allow_patterns):
        calls.append((name, allow_patterns))
        return str(snapshot)

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.snapshot_download", download)
        found = find_reader("somebody/adapters/sae.safetensors")
        with pytest.raises(ReaderError, match=r"the repository somebody/adapters has no other\.safetensors"):
            find_reader("somebody/adapters/other.safetensors")
    assert calls[0] == ("somebody/adapters", ["sae.safetensors", "mean-vectors.safetensors"])
    assert found.path == path
    with pytest.raises(
        ReaderError, match=r"reader nobody/there/x.safetensors: no such file or folder, and not from the"
    ):
        find_reader("nobody/there/x.safetensors")
    with pytest.raises(ReaderError, match=r"reader \./nobody/there: there is no such file or folder"):
        find_reader("./nobody/there")
