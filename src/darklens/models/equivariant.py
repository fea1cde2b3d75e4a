"""Networks whose answer does not change when the image is turned or mirrored, by construction.

The group convolutions of Cohen & Welling (2016) for turns by 90° (C4) and with mirrors (D4), which a square grid has
exactly. C8 and D8 add turns by 45°, which it has not: there the features of the image and of its copy turned by 45° are
averaged, exact but for the interpolation of that copy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, relu

from darklens.data.augmentation import transform
from darklens.errors import ModelError

C4, D4 = (0, 3, 5, 6), tuple(range(8))
"""The symmetries of the square, numbered as in `darklens.data.augmentation.transform`."""
GROUPS = {"C4": (C4, 1), "D4": (D4, 1), "C8": (C4, 2), "D8": (D4, 2)}
"""Exact symmetries, and the number of copies turned within 90° whose features are averaged."""


def _quotients(elements: Sequence[int]) -> Tensor:
    """Table (G, G) of which element is left of the second when the first is undone."""
    marks = torch.arange(9, device="cpu").reshape(3, 3)  # also where the network itself is built without memory
    known = [transform(marks, g) for g in elements]
    inverse = [next(k for k in elements if torch.equal(transform(m, k), marks)) for m in known]

    def index(image: Tensor) -> int:
        return next(i for i, m in enumerate(known) if torch.equal(m, image))

    table = [[index(transform(m, inverse[g])) for m in known] for g in range(len(known))]
    return torch.tensor(table, device="cpu")


class GroupConvolution(nn.Module):
    """A convolution over the group: from features (N, C·G, H, W) to (N, O·G, H, W), or from images if ``lifting``."""

    def __init__(self, width: int, wider: int, elements: Sequence[int], kernel: int = 3, lifting: bool = False):
        super().__init__()
        self.elements, self.lifting, self.padding = elements, lifting, kernel // 2
        inputs = 1 if lifting else len(elements)
        self.weight = nn.Parameter(torch.empty(wider, width * inputs, kernel, kernel))
        nn.init.normal_(self.weight, std=math.sqrt(2 / (width * inputs * kernel**2)))
        self.quotients = _quotients(elements)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.reshape(
            len(self.weight), -1, 1 if self.lifting else len(self.elements), *self.weight.shape[2:]
        )
        kernels = [
            transform(weight if self.lifting else weight[:, :, self.quotients[i]], g)
            for i, g in enumerate(self.elements)
        ]
        stacked = torch.stack(kernels, dim=1)  # (O, G, C, inputs, k, k)
        return conv2d(x, stacked.flatten(0, 1).flatten(1, 2), padding=self.padding)


class GroupNorm2d(nn.BatchNorm2d):
    """Batch normalisation that all elements of the group share."""

    def __init__(self, width: int, order: int):
        super().__init__(width)
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        return super().forward(x.reshape(n, channels // self.order, self.order * height, width)).reshape(x.shape)


def halve(x: Tensor) -> Tensor:
    """Mean over neighbours, half as many pixels, symmetric for even and odd sides."""
    if x.shape[-1] % 2:
        return avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
    return avg_pool2d(x, 2)


class EquivariantBlock(nn.Module):
    """Two group convolutions beside a shortcut."""

    def __init__(self, width: int, wider: int, elements: Sequence[int]):
        super().__init__()
        order = len(elements)
        self.first, self.first_norm = GroupConvolution(width, wider, elements), GroupNorm2d(wider, order)
        self.second, self.second_norm = GroupConvolution(wider, wider, elements), GroupNorm2d(wider, order)
        nn.init.zeros_(self.second_norm.weight)
        self.shortcut = GroupConvolution(width, wider, elements, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(relu(self.first_norm(self.first(x)))))
        return relu(y + self.shortcut(x))


class EquivariantResNet(nn.Module):
    """A residual network of group convolutions, pooled over group and positions: invariant under its group.

    Parameters
    ----------
    group
        C4, D4, C8 or D8.
    widths
        Fields of each stage; each field is one channel an element of the group. Every stage halves the image.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        group: str = "D4",
        widths: Sequence[int] = (8, 16, 32, 64),
        dropout: float = 0.0,
    ):
        super().__init__()
        if group not in GROUPS:
            raise ModelError(f"no group {group!r}; there are {', '.join(GROUPS)}")
        elements, self.copies = GROUPS[group]
        self.order = len(elements)
        self.stem = nn.Sequential(
            GroupConvolution(in_channels, widths[0], elements, kernel=5, lifting=True),
            GroupNorm2d(widths[0], self.order),
            nn.ReLU(),
        )
        self.stages = nn.ModuleList(
            EquivariantBlock(a, b, elements) for a, b in zip([widths[0], *widths[:-1]], widths, strict=True)
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], outputs))

    def features(self, images: Tensor) -> Tensor:
        """Invariant features (N, F) of images (N, C, H, H)."""
        x = halve(self.stem(images))
        for stage in self.stages:
            x = stage(halve(x))
        return x.reshape(len(x), -1, self.order, *x.shape[-2:]).mean((2, 3, 4))

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (N, outputs) of images (N, C, H, H)."""
        turned = [images] + [turn(images, 90 * k / self.copies) for k in range(1, self.copies)]
        logits: Tensor = self.head(torch.stack([self.features(copy) for copy in turned]).mean(0))
        return logits


def turn(images: Tensor, degrees: float) -> Tensor:
    """Images (N, C, H, H) turned about their centre, bilinearly; corners come from the border."""
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
    grid = affine_grid(matrix.to(images).expand(len(images), -1, -1), list(images.shape), align_corners=False)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
