"""Which floating-point formats the hardware computes in."""

from __future__ import annotations

import torch


def computes_in_bfloat16() -> bool:
    """Return whether the GPU, or where there is none the CPU, has instructions for bfloat16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check is not None and check() for check in checks)


def resolve_precision(precision: str) -> str:
    """Return Lightning's name of a precision; ``auto`` is bfloat16 where the hardware computes in it, else float32."""
    if precision != "auto":
        return precision
    if computes_in_bfloat16():
        return "bf16-mixed"
    return "16-mixed" if torch.cuda.is_available() else "32-true"
