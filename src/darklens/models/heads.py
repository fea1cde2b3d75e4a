"""The layers that a published system puts on a backbone in place of its own classifier."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

Head = Literal["linear", "normalized", "hidden"]


def make_head(kind: Head, features: int, outputs: int, dropout: float, hidden: int = 512) -> nn.Module:
    """Layers from pooled features (N, features) to (N, outputs).

    ``linear`` is dropout and a dense layer; ``normalized`` has batch norm before them; ``hidden`` is dense, ReLU, batch
    norm, dropout, dense.
    """
    if kind == "hidden":
        first = [nn.Linear(features, hidden), nn.ReLU(), nn.BatchNorm1d(hidden)]
        return nn.Sequential(*first, nn.Dropout(dropout), nn.Linear(hidden, outputs))
    norm = [nn.BatchNorm1d(features)] if kind == "normalized" else []
    return nn.Sequential(*norm, nn.Dropout(dropout), nn.Linear(features, outputs))


class Headed(nn.Module):
    """A backbone that puts out pooled features, and a head on them."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (N, outputs) of images (N, C, H, W)."""
        output: Tensor = self.head(self.backbone(images))
        return output
