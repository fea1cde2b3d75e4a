"""Which precision is chosen on which hardware."""

import pytest
import torch

from darklens.tasks.precision import computes_in_bfloat16, resolve_precision


@pytest.fixture
def hardware(monkeypatch):
    """Pretend a machine: a GPU or none, and which of them computes in bfloat16."""

    def pretend(gpu, gpu_bfloat16=False, avx512=False, amx=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu_bfloat16)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("machine", "computes", "precision"),
    [
        ({"gpu": True, "gpu_bfloat16": True}, True, "bf16-mixed"),
        ({"gpu": True, "avx512": True, "amx": True}, False, "16-mixed"),
        ({"gpu": False, "gpu_bfloat16": True}, False, "32-true"),
        ({"gpu": False, "avx512": True}, True, "bf16-mixed"),
        ({"gpu": False, "amx": True}, True, "bf16-mixed"),
    ],
)
def test_precision_is_that_of_the_hardware(hardware, machine, computes, precision):
    hardware(**machine)
    assert computes_in_bfloat16() is computes
    assert resolve_precision("auto") == precision
    assert resolve_precision("64-true") == "64-true", "what is asked for is taken"


def test_versions_of_pytorch_without_these_checks_do_not_compute_in_it(hardware, monkeypatch):
    hardware(gpu=False, avx512=True, amx=True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert computes_in_bfloat16()
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    assert not computes_in_bfloat16()
