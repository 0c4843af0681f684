"""Files of vectors: reading any range of rows, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from transformers.interpretation.vectors.formats import open_vectors
from transformers.interpretation.vectors.vector_file import VectorsError

N, HIDDEN = 1100, 5
VECTORS = torch.randn(N, HIDDEN, generator=torch.Generator().manual_seed(0))
NAMES = [f"feature {index}" for index in range(N)]


def parquet_file(path, kind, **columns):
    vectors = pa.array(VECTORS.double().tolist(), kind)
    pq.write_table(pa.table({"activation_vector": vectors, "label": NAMES} | columns), path, row_group_size=300)
    return path


def sae_folder(folder, config, **tensors):
    folder.mkdir()
    save_file({"W_dec": VECTORS, "W_enc": VECTORS.T.contiguous()} | tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def written(folder: Path, form: str) -> tuple[Path, dict]:
    """A file of VECTORS, and what opens it."""
    if form == "npy":
        np.save(folder / "vectors.npy", VECTORS.numpy().astype(">f8"))
        return folder / "vectors.npy", {}
    if form == "safetensors":
        save_file({"directions": VECTORS, "bias": torch.zeros(3)}, folder / "vectors.safetensors")
        return folder / "vectors.safetensors", {}
    if form == "one of several tensors":
        save_file({"a": torch.zeros(3, HIDDEN), "b": VECTORS}, folder / "vectors.safetensors")
        return folder / "vectors.safetensors", {"tensor": "b"}
    if form == "a tensor each":
        save_file({f"{index:04}": row.clone() for index, row in enumerate(VECTORS)}, folder / "v.safetensors")
        return folder / "v.safetensors", {}
    if form == "sae":
        return sae_folder(folder / "sae", {"hook_name": "blocks.2.hook_resid_post"}), {}
    kinds = {"list": pa.list_(pa.float32()), "fixed": pa.list_(pa.float64(), HIDDEN)}
    return parquet_file(folder / "vectors.parquet", kinds[form]), {}


@pytest.mark.parametrize(
    "form", ["npy", "safetensors", "one of several tensors", "a tensor each", "sae", "list", "fixed"]
)
def test_any_rows_in_any_order(tmp_path, form):
    path, options = written(tmp_path, form)
    file = open_vectors(path, **options)
    assert (file.n, file.hidden) == VECTORS.shape
    for start, stop in [(0, 3), (3, 700), (1000, N), (5, 9), (299, 302), (1, 1), (0, N)]:
        rows = file.rows(start, stop)
        assert rows.dtype == torch.float32 and torch.equal(rows, VECTORS[start:stop])
    with pytest.raises(VectorsError, match="has rows 0 to 1099, not 5:1101"):
        file.rows(5, N + 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_numbers_are_read_as_float32(tmp_path, dtype):
    save_file({"v": VECTORS.to(dtype)}, tmp_path / "v.safetensors")
    assert torch.equal(open_vectors(tmp_path / "v.safetensors").rows(7, 90), VECTORS.to(dtype)[7:90].float())


def test_names_by_number_by_line_by_column_and_by_tensor(tmp_path):
    path, _ = written(tmp_path, "list")
    assert open_vectors(path).names(3, 5) == ["vector 3", "vector 4"]
    assert open_vectors(path, names="label").names(299, 302) == NAMES[299:302]
    lines = tmp_path / "names.txt"
    lines.write_bytes("\r\n".join([*NAMES[:-1], "köln"]).encode())
    named = open_vectors(path, names=str(lines))
    for start, stop in [(0, 2), (1020, 1030), (1098, N), (4, 4)]:
        assert named.names(start, stop) == [*NAMES[:-1], "köln"][start:stop]
    path, _ = written(tmp_path, "a tensor each")
    assert open_vectors(path).names(1, 3) == ["0001", "0002"]


def test_the_digest_is_of_the_content(tmp_path):
    path, _ = written(tmp_path, "npy")
    first = open_vectors(path).digest
    again = path.rename(tmp_path / "again.npy")
    assert open_vectors(again).digest == first
    np.save(again, VECTORS.numpy().astype(">f8") * np.where(np.arange(N) == 550, 2, 1)[:, None])
    assert open_vectors(again).digest != first


def test_a_large_file_is_known_by_a_sample(tmp_path, monkeypatch):
    from transformers.interpretation.vectors import digest

    monkeypatch.setattr(digest, "BLOCKS", 3)
    path = tmp_path / "large"
    content = bytearray(10 * digest.BLOCK)
    path.write_bytes(content)
    first = digest.sampled_digest(path)
    for place, noticed in [(0, True), (5 * digest.BLOCK, True), (len(content) - 1, True), (2 * digest.BLOCK, False)]:
        changed = content.copy()
        changed[place] = 1
        path.write_bytes(changed)
        assert (digest.sampled_digest(path) != first) == noticed
    path.write_bytes(content[:-1])
    assert digest.sampled_digest(path) != first


@pytest.mark.parametrize(
    ("hook", "place", "layer"),
    [
        ("blocks.8.hook_resid_post", "residual", 9),
        ("blocks.8.hook_resid_pre", "residual", 8),
        ("blocks.8.hook_mlp_out", "mlp_output", 8),
        ("blocks.8.hook_attn_out", "attention_output", 8),
        ("model.layers.8", "residual", 9),
        ("transformer.h.8", "residual", 9),
    ],
)
@pytest.mark.parametrize("nested", [True, False])
def test_where_a_sae_comes_from(tmp_path, hook, place, layer, nested):
    given = {"hook_name": hook, "model_name": "gpt2-small"}
    path = sae_folder(tmp_path / "sae", {"d_in": HIDDEN, **({"metadata": given} if nested else given)})
    origin = open_vectors(path).origin
    assert (origin.hook, origin.place, origin.layer, origin.model) == (hook, place, layer, "gpt2-small")


def test_a_transcoder_writes_elsewhere_than_it_reads(tmp_path):
    config = {"hook_name": "blocks.8.ln2.hook_normalized", "hook_name_out": "blocks.8.hook_mlp_out"}
    assert open_vectors(sae_folder(tmp_path / "sae", config)).origin.place == "mlp_output"


def test_a_sae_of_the_hub(tmp_path, monkeypatch):
    """By its repository and the folder in it; what the library says of a failure is told in one line."""
    sae_folder(tmp_path / "sae", {"hook_name": "blocks.2.hook_resid_post"})
    asked = []

    def download(repository, file):
        asked.append((repository, file))
        if repository == "owner/none":
            raise RuntimeError("404 Client Error\n\nRepository Not Found")
        return str(tmp_path / "sae" / Path(file).name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    file = open_vectors(Path("owner/saes/layer_2/width"))
    assert torch.equal(file.rows(3, 5), VECTORS[3:5])
    assert asked == [
        ("owner/saes", "layer_2/width/cfg.json"),
        ("owner/saes", "layer_2/width/sae_weights.safetensors"),
    ]
    assert "cannot be had from the hub: 404 Client Error Repository Not Found" in refused(Path("owner/none"))
    asked.clear()
    for name in ("nowhere", "owner/vectors.parquet", "../saes/x", "/owner/saes"):
        assert refused(Path(name)) == f"there is no {name}"
    assert asked == []


def refused(*args, **options) -> str:
    with pytest.raises(VectorsError) as caught:
        open_vectors(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_cut_off_or_pickled(tmp_path):
    for form in ("npy", "safetensors", "list"):
        path, options = written(tmp_path, form)
        content = path.read_bytes()
        for length in (0, 5, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            assert "cannot be read" in (said := refused(path, **options)) or "is pickled or no .npy" in said
    pickled = tmp_path / "objects.npy"
    np.save(pickled, np.array([{}], dtype=object), allow_pickle=True)
    assert "is pickled" in refused(pickled)
    torch.save(VECTORS, tmp_path / "vectors.pt")
    assert "save its tensor as safetensors or .npy" in refused(tmp_path / "vectors.pt")


def test_what_is_not_there_or_something_else(tmp_path):
    path, _ = written(tmp_path, "one of several tensors")
    assert "choose with --tensor" in refused(path)
    assert 'has no tensor "c"; it has tensors a (3 × 5), b (1100 × 5)' in refused(path, tensor="c")
    save_file({"ids": torch.ones(3, 4, dtype=torch.int64)}, tmp_path / "ids.safetensors")
    assert "found I64, 3 × 4; expected floating point numbers" in refused(tmp_path / "ids.safetensors")
    save_file({"none": torch.ones(0, 4)}, tmp_path / "none.safetensors")
    assert "no vectors, 0 × 4" in refused(tmp_path / "none.safetensors")
    assert "leave out --vector-column" in refused(path, column="x")
    path, _ = written(tmp_path, "list")
    assert "choose one with --vector-column: activation_vector, label" in refused(path, column="activation")
    assert "found string; expected lists" in refused(path, column="label")
    assert "leave out --tensor" in refused(path, tensor="x")
    np.save(tmp_path / "column.npy", np.asfortranarray(VECTORS.numpy()))
    assert "column by column" in refused(tmp_path / "column.npy")
    np.save(tmp_path / "flat.npy", VECTORS.numpy()[0])
    assert "found float32, 5; expected floating point numbers, n × hidden" in refused(tmp_path / "flat.npy")
    assert "there is no" in refused(tmp_path / "missing.npy")
    (tmp_path / "vectors.txt").write_text("1 2 3")
    assert "must be .safetensors" in refused(tmp_path / "vectors.txt")


def test_a_folder_that_is_no_sae(tmp_path):
    assert "has no cfg.json" in refused(tmp_path)
    for number, hook in enumerate(("blocks.8.attn.hook_z", "blocks.8.hook_mlp_in", "ln_final.hook_normalized")):
        said = refused(sae_folder(tmp_path / f"sae{number}", {"hook_name": hook}))
        assert f"the SAE is of {hook}, whose vectors are in no space" in said
    folder = sae_folder(tmp_path / "list", [])
    assert "is no configuration of a SAE" in refused(folder)


def test_names_that_do_not_fit(tmp_path):
    path, _ = written(tmp_path, "npy")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(NAMES[:-1]))
    assert "1099 names for the 1100 rows" in refused(path, names=str(names))
    names.write_bytes(b"a\n\xff\n")
    assert "line 2 is not UTF-8" in refused(path, names=str(names))
    assert "cannot read names" in refused(path, names=str(tmp_path / "missing"))


def test_lists_of_several_lengths(tmp_path):
    lists = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0], None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"activation_vector": lists}), tmp_path / "v.parquet")
    file = open_vectors(tmp_path / "v.parquet")
    assert file.rows(0, 2).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(VectorsError, match="rows 1 to 3 have 3 numbers; expected 2 each"):
        file.rows(1, 4)
