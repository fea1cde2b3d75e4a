"""A transformer on features that do not depend on how an image is turned or mirrored: convolutions see all copies."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from darklens.data.augmentation import transform
from darklens.errors import ModelError
from darklens.models.equivariant import C4, D4
from darklens.models.heads import Head, Headed, make_head
from darklens.models.patches import transformer_block
from darklens.models.transformer import SmallestSide, draw_weights

Stem = Literal["convolutions", "resnet50"]
STRIDE = 8
"""Pixels between tokens, of both stems."""


def undone(symmetry: int) -> int:
    """Return the symmetry that undoes one of `darklens.data.augmentation.transform`."""
    if not symmetry & 4:
        return symmetry
    return 4 | (symmetry & 1) << 1 | (symmetry & 2) >> 1


class SummedCopies(nn.Module):
    """Apply layers to an image and its turned copies, turn the maps back, and average them.

    Whatever the layers are, the map turns with the image, exactly.

    Parameters
    ----------
    layers
        From images (N, C, H, H) to maps (N, F, h, h).
    symmetries
        Those of the copies, a group.
    """

    def __init__(self, layers: nn.Module, symmetries: tuple[int, ...]):
        super().__init__()
        self.layers, self.symmetries = layers, symmetries

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, F, h, h) of images (N, C, H, H)."""
        copies = torch.cat([transform(images, g) for g in self.symmetries])
        maps = self.layers(copies).unflatten(0, (len(self.symmetries), -1))
        return torch.stack([transform(m, undone(g)) for g, m in zip(self.symmetries, maps, strict=True)]).mean(0)


def invariant_positions(side: int, width: int) -> Tensor:
    """Return positions (side², width) that are the same for places that a symmetry of the square exchanges.

    Sines and cosines of the larger and of the smaller distance from the centre along an axis, in tokens.

    Parameters
    ----------
    side
        Tokens a side.
    width
        Channels of a token, a multiple of 4.
    """
    quarter = width // 4
    away = (torch.arange(side) - (side - 1) / 2).abs()
    y, x = torch.meshgrid(away, away, indexing="ij")
    rates = torch.exp(-torch.log(torch.tensor(10_000.0)) * torch.arange(quarter) / quarter)
    angles = [each.reshape(-1, 1) * rates for each in (torch.maximum(x, y), torch.minimum(x, y))]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


class InvariantEncoder(nn.Module):
    """Summed copies of a stem, then a transformer whose positions know no orientation, averaged over tokens.

    Parameters
    ----------
    stem
        From images (N, C, H, H) to maps (N, width, h, h).
    width, depth, heads
        Of the transformer.
    symmetries
        Of the copies.
    """

    def __init__(self, stem: nn.Module, *, width: int, depth: int, heads: int, symmetries: tuple[int, ...]):
        super().__init__()
        self.smallest = SmallestSide("equivariant-transformer", STRIDE)
        self.stem = SummedCopies(stem, symmetries)
        self.blocks = nn.ModuleList(transformer_block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        draw_weights(self.blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, width), the same for turned copies of images (N, C, H, H)."""
        if images.shape[-1] != images.shape[-2]:
            raise ModelError(f"turned copies are of square images; got {images.shape[-2]}×{images.shape[-1]}")
        maps = self.stem(self.smallest(images))
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = tokens + invariant_positions(maps.shape[-1], tokens.shape[-1]).to(tokens)
        for block in self.blocks:
            tokens = block(tokens)
        features: Tensor = self.norm(tokens).mean(1)
        return features


def equivariant_transformer(
    in_channels: int,
    outputs: int,
    *,
    group: Literal["C4", "D4"] = "D4",
    stem: Stem = "convolutions",
    width: int = 128,
    depth: int = 4,
    heads: int = 4,
    head: Head = "hidden",
    dropout: float = 0.0,
    pretrained: bool = False,
) -> nn.Module:
    """Build a transformer on convolutional features of an image and its turned copies, which are averaged.

    Parameters
    ----------
    group
        C4: turns by 90°; D4: with mirrors.
    stem
        convolutions: three that halve the side; resnet50: the first two of the four stages of a ResNet-50.
    width
        Channels of a token, a multiple of 4 and of ``heads``.
    depth
        Number of transformer blocks.
    heads
        Heads of the attention.
    head
        linear, normalized or hidden, as of the network timm.
    dropout
        Fraction of the head's features that is set to 0 in training.
    pretrained
        Start the stem resnet50 from timm's weights, which are fetched from the hub once and cached.

    Raises
    ------
    ModelError
        If a size makes no sense, or weights are asked for that do not exist.
    """
    if width < 4 or width % 4:
        raise ModelError(f"width is {width}; positions of tokens take a multiple of 4")
    if depth < 0:
        raise ModelError(f"depth is {depth}; expected at least 0")
    if pretrained and stem != "resnet50":
        raise ModelError("pretrained weights are those of the stem resnet50: --network.stem resnet50")
    layers = _resnet50(in_channels, width, pretrained) if stem == "resnet50" else _convolutions(in_channels, width)
    symmetries = C4 if group == "C4" else D4
    encoder = InvariantEncoder(layers, width=width, depth=depth, heads=heads, symmetries=symmetries)
    return Headed(encoder, make_head(head, width, outputs, dropout))


def _convolutions(in_channels: int, width: int) -> nn.Module:
    widths = [in_channels, max(width // 4, 8), max(width // 2, 8), width]
    layers: list[nn.Module] = []
    for number in range(3):
        before, after = widths[number : number + 2]
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(width, width, 1))


class _FirstStages(nn.Module):
    """The last of the maps that a timm model gives, with other channels."""

    def __init__(self, features: nn.Module, channels: int, width: int):
        super().__init__()
        self.features = features
        self.project = nn.Conv2d(channels, width, 1)

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.project(self.features(images)[-1])
        return maps


def _resnet50(in_channels: int, width: int, pretrained: bool) -> nn.Module:
    import timm

    try:
        features = timm.create_model(
            "resnet50", in_chans=in_channels, features_only=True, out_indices=(2,), pretrained=pretrained
        )
    except Exception as error:  # of a download, any
        raise ModelError(
            f"the weights of resnet50 cannot be fetched ({type(error).__name__}: {error}); --network.pretrained false "
            "starts from random ones"
        ) from error
    return _FirstStages(features, 512, width)
