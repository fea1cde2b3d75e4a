"""DenseNet with attention: dense blocks, each followed by a convolutional block attention module."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn


def cbam_densenet(
    in_channels: int, outputs: int, growth: int = 32, blocks: Sequence[int] = (6, 12, 24, 16), dropout: float = 0.0
) -> nn.Module:
    """DenseNet (Huang et al. 2017) whose blocks are each followed by CBAM (Woo et al. 2018).

    ``growth`` is the number of channels that a layer adds, ``blocks`` the layers of each block; the defaults are those of
    DenseNet-121. Channels are halved between blocks.
    """
    from timm.layers.cbam import CbamModule
    from timm.models.densenet import DenseBlock, DenseTransition

    width = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
    )
    for number, depth in enumerate(blocks, 1):
        block = DenseBlock(depth, width, bn_size=4, growth_rate=growth)
        width += depth * growth
        layers[f"block{number}"] = nn.Sequential(block, CbamModule(width))
        if number < len(blocks):
            layers[f"transition{number}"] = DenseTransition(width, width // 2)
            width //= 2
    layers["norm"] = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout))
    layers["head"] = nn.Linear(width, outputs)
    return nn.Sequential(layers)
