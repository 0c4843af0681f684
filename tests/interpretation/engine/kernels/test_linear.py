"""Linear layers by oneDNN against torch's own, wherever they are answered."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers.interpretation.engine.kernels import linear
from transformers.interpretation.engine.kernels.linear import one_dnn_linear


class OfAnotherClass(torch.Tensor):
    """As quantised weights are."""


@pytest.fixture
def on_amd(monkeypatch):
    monkeypatch.setattr(linear, "_is_faster", lambda: True)


INPUTS = {
    "rows": torch.randn(5, 12),
    "a batch": torch.randn(3, 4, 12),
    "the last positions": torch.randn(3, 4, 12)[:, -1:],
    "transposed": torch.randn(12, 7).T,
}


@pytest.mark.parametrize("bias", [None, torch.randn(9)], ids=["no bias", "bias"])
@pytest.mark.parametrize("given", INPUTS.values(), ids=INPUTS.keys())
@torch.no_grad()
def test_the_same_numbers(on_amd, given, bias):
    weight = torch.randn(9, 12)
    for one in (weight, torch.randn(12, 9).T):
        found = one_dnn_linear(given, one, bias)
        torch.testing.assert_close(found, functional.linear(given, one, bias), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_left_to_torch(on_amd, monkeypatch):
    given, weight = torch.randn(3, 4), torch.randn(2, 4)
    assert one_dnn_linear(given.bfloat16(), weight.bfloat16()) is NotImplemented
    assert one_dnn_linear(given.double(), weight.double()) is NotImplemented
    assert one_dnn_linear(given.to("meta"), weight.to("meta")) is NotImplemented
    assert one_dnn_linear(given[:0], weight) is NotImplemented
    assert one_dnn_linear(given, weight.as_subclass(OfAnotherClass)) is NotImplemented
    with torch.enable_grad():
        assert one_dnn_linear(given, weight) is NotImplemented
    monkeypatch.setattr(linear, "_is_faster", lambda: False)
    assert one_dnn_linear(given, weight) is NotImplemented


@pytest.mark.parametrize("processor, expected", [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_only_on_amd_beside_mkl(monkeypatch, tmp_path, processor, expected):
    info = tmp_path / "cpuinfo"
    info.write_text(f"vendor_id : {processor}\n")
    monkeypatch.setattr(linear, "Path", lambda _: info)
    assert linear._is_faster.__wrapped__() == (expected and torch.backends.mkl.is_available())
    info.unlink()
    assert not linear._is_faster.__wrapped__()
