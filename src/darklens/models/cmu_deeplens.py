"""The residual network of CMU DeepLens, which won the ground-based part of the Lens Finding Challenge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import elu


class CMUDeepLens(nn.Module):
    """A pre-activated residual network of bottleneck units (Lanusse et al. 2018, arXiv:1703.02642).

    A convolution of 7×7 pixels, then stages of units of three convolutions; stages after the first halve the image.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and numbers that come out.
    widths
        Channels of the first convolution and the first stage, and of each stage after it.
    units
        Units of each stage. Three in each of five stages are 46 layers of convolution, as published.
    dropout
        Before the last layer.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        widths: Sequence[int] = (32, 64, 128, 256, 512),
        units: int = 3,
        dropout: float = 0.0,
    ):
        super().__init__()
        first = nn.Conv2d(in_channels, widths[0], 7, padding=3, bias=False)
        nn.init.xavier_uniform_(first.weight)
        self.stem = nn.Sequential(first, nn.BatchNorm2d(widths[0]), nn.ELU())
        layers: list[nn.Module] = []
        width = widths[0]
        for stage, unit in itertools.product(range(len(widths)), range(units)):
            activated = not stage and not unit
            layers.append(Bottleneck(width, widths[stage], stride=2 if stage and not unit else 1, activated=activated))
            width = widths[stage]
        self.stages = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, outputs))

    def features(self, images: Tensor) -> Tensor:
        """Features (N, F) of images (N, C, H, W): means over positions of the last stage."""
        return self.stages(self.stem(images)).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits or values (N, outputs) of images (N, C, H, W)."""
        output: Tensor = self.head(self.features(images))
        return output


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels beside a shortcut, with norm and ELU before each (He et al. 2016).

    Parameters
    ----------
    width, wider
        Channels before and after; between, half as many as after.
    stride
        2 halves the image.
    activated
        Whether what comes in has passed norm and ELU already.
    """

    def __init__(self, width: int, wider: int, *, stride: int = 1, activated: bool = False):
        super().__init__()
        inner = max(1, wider // 2)
        self.norm: nn.Module = nn.Identity() if activated else nn.Sequential(nn.BatchNorm2d(width), nn.ELU())
        self.first = nn.Conv2d(width, inner, 1, stride=stride, bias=False)
        self.first_norm = nn.BatchNorm2d(inner)
        self.second = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(inner)
        self.third = nn.Conv2d(inner, wider, 1)
        changes = stride != 1 or width != wider
        self.shortcut = nn.Conv2d(width, wider, 1, stride=stride) if changes else None
        for layer in (self.first, self.second, self.third, *([self.shortcut] if self.shortcut is not None else [])):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, wider, H', W') of (N, width, H, W)."""
        activated = self.norm(x)
        y = elu(self.first_norm(self.first(activated)))
        y = self.third(elu(self.second_norm(self.second(y))))
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(activated)
        return y + shortcut
