"""Ellipticity components and axis ratio with angle, in lenstronomy's convention."""

import torch
from torch import Tensor


def axis_ratio_and_angle(e1: Tensor, e2: Tensor) -> tuple[Tensor, Tensor]:
    """Axis ratio ``q`` (minor over major) and angle ``phi`` of the major axis, radians from +x.

    ``e1`` and ``e2`` may have any broadcastable shape. Moduli above 0.9999 are clipped, as lenstronomy does.
    """
    # The angle of a circle is free: a tiny e1 keeps its gradient finite.
    modulus = torch.hypot(e1, e2).clamp(1e-20, 0.9999)
    phi = torch.atan2(e2, torch.where((e1 == 0) & (e2 == 0), e1 + 1e-20, e1)) / 2
    return (1 - modulus) / (1 + modulus), phi


def ellipticity(q: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Components ``e1, e2`` of axis ratio ``q`` and position angle ``phi`` (radians from +x)."""
    modulus = (1 - q) / (1 + q)
    return modulus * torch.cos(2 * phi), modulus * torch.sin(2 * phi)


def rotate(x: Tensor, y: Tensor, phi: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of ``(x, y)`` in axes turned by ``phi`` (radians, counter-clockwise)."""
    cos, sin = torch.cos(phi), torch.sin(phi)
    return cos * x + sin * y, cos * y - sin * x
