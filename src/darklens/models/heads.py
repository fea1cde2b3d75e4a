"""The layers that a published system puts on a backbone in place of its own classifier."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from darklens.errors import ModelError

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


class Latent(nn.Module):
    """A backbone whose pooled features pass dropout, a dense layer and PReLU.

    Parameters
    ----------
    backbone
        From images (N, C, H, W) to pooled features (N, features).
    features, size
        Numbers that the backbone puts out, and numbers after the dense layer.
    dropout
        Probability with which a pooled feature is left out in training.
    """

    def __init__(self, backbone: nn.Module, features: int, size: int, dropout: float = 0.0):
        super().__init__()
        if size < 1:
            raise ModelError(f"latent is {size}; expected a number of features, at least 1")
        self.backbone = backbone
        self.projection = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, size), nn.PReLU())

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, size) of images (N, C, H, W)."""
        features: Tensor = self.projection(self.backbone(images))
        return features


class Headed(nn.Module):
    """A backbone that puts out pooled features, and a head on them."""

    def __init__(self, backbone: nn.Module, head: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, head

    def features(self, images: Tensor) -> Tensor:
        """Features (N, F) of images (N, C, H, W), which the head reads."""
        features: Tensor = self.backbone(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (N, outputs) of images (N, C, H, W)."""
        output: Tensor = self.head(self.features(images))
        return output


def with_latent(backbone: nn.Module, features: int, outputs: int, size: int, dropout: float) -> Headed:
    """Return an encoder of ``size`` features and a dense layer on them, as published domain adaptation has them.

    Parameters
    ----------
    backbone
        From images (N, C, H, W) to pooled features (N, features).
    features
        Numbers that the backbone puts out.
    outputs
        Numbers to put out.
    size
        Features of the encoder, ``Headed.features``: (N, size).
    dropout
        Before the dense layer of the encoder.

    Returns
    -------
    Headed
        Its backbone is a `Latent`.
    """
    return Headed(Latent(backbone, features, size, dropout), nn.Linear(size, outputs))


def last_linear(network: nn.Module) -> nn.Linear | None:
    """Return the dense layer that makes an answer of features; None if there is none, or the network is ``headless``."""
    if getattr(network, "headless", False):
        return None
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None
