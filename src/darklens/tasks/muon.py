"""timm's Muon, whose matrix iteration computes in a precision that the hardware has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from timm.optim import muon

from darklens.tasks.precision import computes_in_bfloat16


class Muon(muon.Muon):  # type: ignore[misc]
    """Muon (Jordan et al. 2024) as timm has it, in float32 on hardware that only emulates bfloat16.

    timm orthogonalises every step by a Newton-Schulz iteration in bfloat16. A CPU that does not compute in it takes
    several times longer over the iteration than over the network (2.4 s a step for substructure/darklens, in place of
    0.5 s).
    """

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take one step; see `torch.optim.Optimizer.step`."""
        if computes_in_bfloat16():
            return super().step(closure)
        iteration = muon.zeropower_via_newtonschulz
        muon.zeropower_via_newtonschulz = partial(iteration, dtype=torch.float32)
        try:
            return super().step(closure)
        finally:
            muon.zeropower_via_newtonschulz = iteration
