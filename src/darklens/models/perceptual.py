"""Features of trained classifiers, in which predicted and true images are compared."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darklens.errors import ModelError
from darklens.models.backbones import timm_network
from darklens.models.compact import CompactResNet, radius_channel

VGG_LAYERS = 35
"""Layers of VGG-19 up to its last convolution, before its activation, as ESRGAN has them (arXiv:1809.00219)."""


class ImageNetFeatures(nn.Module):
    """Features of VGG-19, trained on ImageNet, before the activation of its last convolution.

    Raises
    ------
    ModelError
        If its weights are not in the cache and cannot be fetched.
    """

    def __init__(self) -> None:
        super().__init__()
        network: Any = timm_network(3, 0, "vgg19.tv_in1k", pretrained=True)
        self.layers = nn.Sequential(*list(network.features)[:VGG_LAYERS])

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, F, h, w) of images (N, C, H, W); one band is repeated, of several the first three count."""
        coloured = images.expand(-1, 3, -1, -1) if images.shape[1] < 3 else images[:, :3]
        features: Tensor = self.layers(coloured)
        return features


class ClassifierFeatures(nn.Module):
    """Features of a compact network before its last residual stage, of an image without what a fitted lens leaves.

    Parameters
    ----------
    folder
        Of a trained model for images of one band.

    Raises
    ------
    ModelError
        If it is none, or its network is not compact.
    """

    def __init__(self, folder: Path):
        super().__init__()
        from safetensors.torch import load_file

        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
            state = load_file(folder / "model.safetensors")
            options, channels = dict(config["network"]), config["channels"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{folder}: holds no trained model whose features can be used: {error}") from error
        if options.pop("name", None) != "compact" or channels != 1:
            raise ModelError(f"{folder}: features are taken of the network compact, for images of one band")
        self.extra = state["stem.0.weight"].shape[1] - 2  # beside the image and the radius
        network = CompactResNet(1 + self.extra, len(config["outputs"]), options["widths"], options["blocks"])
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        blocks = list(network.stages)
        self.stem, self.stages = network.stem, nn.Sequential(*blocks[: max(1, len(blocks) - 1)])

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, F, h, w) of images (N, C, H, W), bands summed."""
        image = images.sum(1, keepdim=True)
        empty = image.new_zeros(1).expand(len(image), self.extra, *image.shape[2:])
        radius = radius_channel(image).expand(len(image), -1, -1, -1)
        features: Tensor = self.stages(self.stem(torch.cat([image, empty, radius], dim=1)))
        return features


def feature_network(name: str) -> nn.Module:
    """Return a network of features with weights that are not trained any more.

    Parameters
    ----------
    name
        imagenet for VGG-19; else the name of a model that darklens ships, or the folder of a model or a run.

    Raises
    ------
    ModelError
        If there is none of the name, or its weights cannot be had.
    """
    if name == "imagenet":
        try:
            network: nn.Module = ImageNetFeatures()
        except ModelError as error:
            raise ModelError(
                f"{error}. --task.features substructure-fair-hst takes features of a model that is shipped, and "
                "--task.perceptual 0 does without"
            ) from error
    else:
        shipped = Path(str(resources.files("darklens") / "weights" / name))
        places = [Path(name) / "model", Path(name), *([shipped] if "/" not in name else [])]
        folder = next((place for place in places if (place / "config.json").is_file()), None)
        if folder is None:
            raise ModelError(
                f"--task.features {name}: no such model; say imagenet, a shipped one (darklens models), or a folder"
            )
        network = ClassifierFeatures(folder)
    return network.eval().requires_grad_(False)
