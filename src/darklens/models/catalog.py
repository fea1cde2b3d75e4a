"""Networks that take columns of a catalogue beside an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.backbones import timm_network

Branches = Literal["both", "image", "catalog"]


def metadata_network(
    in_channels: int,
    outputs: int,
    architecture: str = "tf_efficientnet_b2",
    *,
    catalog_features: int = 0,
    branches: Branches = "both",
    width: int = 32,
    dropout: float = 0.0,
    pretrained: bool = False,
    weights: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Build a network that joins the features of an image with a linear embedding of the catalogue before its last layer.

    Parameters
    ----------
    architecture
        Name of the timm model that makes features of the image.
    catalog_features
        Inputs from the catalogue.
    branches
        both; or image or catalog alone, to see what each of them adds.
    width
        Numbers in the embedding of the catalogue.
    dropout
        Fraction of the joined features that is set to 0 in training.
    pretrained
        Start from timm's weights, which are fetched from the hub once and cached.
    weights
        A local file of weights instead, as for the network timm.
    arguments
        More arguments of the timm model.

    Raises
    ------
    ModelError
        If there are no inputs from the catalogue where they are needed, or the timm model cannot be made.
    """
    _check_sizes(catalog_features, branches != "image", "metadata", width=width)
    backbone = None
    if branches != "catalog":
        backbone = timm_network(
            in_channels, 0, architecture, pretrained=pretrained, weights=weights, arguments=arguments
        )
    return MetadataNetwork(
        backbone, catalog_features if branches != "image" else 0, outputs, width=width, dropout=dropout
    )


class MetadataNetwork(nn.Module):
    """Features of an image and an embedding of the catalogue, joined before one dense layer.

    Parameters
    ----------
    backbone
        From images (N, C, H, W) to features (N, ``num_features``); None takes the catalogue alone.
    catalog_features
        Inputs from the catalogue; 0 takes images alone.
    outputs
        Numbers to put out.
    width
        Numbers in the embedding of the catalogue.
    dropout
        Fraction of the joined features that is set to 0 in training.
    """

    def __init__(self, backbone: nn.Module | None, catalog_features: int, outputs: int, *, width: int, dropout: float):
        super().__init__()
        self.backbone = backbone
        self.embedding = nn.Linear(catalog_features, width) if catalog_features else None
        of_image = int(backbone.num_features) if backbone is not None else 0  # type: ignore[arg-type]
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(of_image + (width if catalog_features else 0), outputs)

    def forward(self, images: Tensor, catalog: Tensor | None = None) -> Tensor:
        """Return logits or values (N, outputs) of images (N, C, H, W) and inputs from the catalogue (N, F)."""
        parts: list[Tensor] = []
        if self.backbone is not None:
            parts.append(self.backbone(images))
        if self.embedding is not None:
            parts.append(self.embedding(_given(catalog, images)))
        if self.backbone is None:
            # Images have no part in it; that a derivative with respect to them exists, and is 0, lets attribution say so.
            parts[0] = parts[0] + 0 * images.flatten(1)[:, :1]
        output: Tensor = self.head(self.dropout(torch.cat(parts, dim=1)))
        return output


def attention_fusion(
    in_channels: int,
    outputs: int,
    *,
    catalog_features: int = 0,
    widths: tuple[int, int] = (32, 64),
    tokens: int = 64,
    heads: int = 4,
    dropout: float = 0.1,
) -> nn.Module:
    """Build a small network that weighs parts of an image and the catalogue against each other by self-attention.

    Parameters
    ----------
    catalog_features
        Inputs from the catalogue.
    widths
        Channels of the two convolutions.
    tokens
        Length of a token, a multiple of ``heads``.
    heads
        Heads of the attention.
    dropout
        Fraction of features before the last two layers that is set to 0 in training.

    Raises
    ------
    ModelError
        If there are no inputs from the catalogue, or a size makes no sense.
    """
    _check_sizes(catalog_features, True, "attention-fusion", tokens=tokens, heads=heads, widths=min(widths))
    if tokens % heads:
        raise ModelError(f"network attention-fusion: tokens is {tokens}, no multiple of heads, {heads}")
    return AttentionFusion(
        in_channels, outputs, catalog_features, widths=widths, tokens=tokens, heads=heads, dropout=dropout
    )


class AttentionFusion(nn.Module):
    """Self-attention over 16 tokens of an image, one of the catalogue, and one that gathers what they say.

    Channels of the image become one by a 1×1 convolution; two convolutions with max pooling follow, whose features on a
    grid of 4×4 are a token each. A dense branch makes a token of the catalogue.

    Parameters
    ----------
    in_channels, outputs
        Channels of the images, and numbers to put out.
    catalog_features
        Inputs from the catalogue.
    widths
        Channels of the two convolutions.
    tokens
        Length of a token.
    heads
        Heads of the attention.
    dropout
        Fraction of features that is set to 0 in training.
    """

    GRID = 4

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        catalog_features: int,
        *,
        widths: tuple[int, int],
        tokens: int,
        heads: int,
        dropout: float,
    ):
        super().__init__()
        self.combine = nn.Conv2d(in_channels, 1, 1)
        layers: list[nn.Module] = []
        for before, after in zip((1, widths[0]), widths, strict=True):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(widths[1], tokens)
        self.places = nn.Parameter(0.02 * torch.randn(self.GRID**2 + 2, tokens))
        self.dense = nn.Sequential(nn.Linear(catalog_features, tokens), nn.ReLU(), nn.Linear(tokens, tokens))
        self.norm = nn.LayerNorm(tokens)
        self.attention = nn.MultiheadAttention(tokens, heads, batch_first=True)
        self.head = nn.Sequential(
            nn.LayerNorm(tokens), nn.Dropout(dropout), nn.Linear(tokens, tokens), nn.ReLU(), nn.Linear(tokens, outputs)
        )

    def forward(self, images: Tensor, catalog: Tensor | None = None) -> Tensor:
        """Return logits or values (N, outputs) of images (N, C, H, W) and inputs from the catalogue (N, F)."""
        features = self.convolutions(self.combine(images))
        grid = nn.functional.adaptive_avg_pool2d(features, self.GRID)
        of_image = self.project(grid.flatten(2).transpose(1, 2))
        of_catalog = self.dense(_given(catalog, images))[:, None]
        gathering = torch.zeros_like(of_catalog)
        tokens = torch.cat([gathering, of_image, of_catalog], dim=1) + self.places
        normal = self.norm(tokens)
        weighed, _ = self.attention(normal, normal, normal, need_weights=False)
        output: Tensor = self.head((tokens + weighed)[:, 0])
        return output


def _given(catalog: Tensor | None, images: Tensor) -> Tensor:
    if catalog is None:
        raise ModelError("this network takes inputs from the catalogue (N, F) beside images: network(images, catalog)")
    return catalog.to(images.dtype)


def _check_sizes(catalog_features: int, needed: bool, name: str, **sizes: int) -> None:
    if needed and not catalog_features:
        raise ModelError(
            f"network {name} takes columns of the catalogue: name them by --inputs.columns, with commas between, or say all"
        )
    for what, size in sizes.items():
        if size < 1:
            raise ModelError(f"network {name}: {what} must be at least 1; got {size}")
