"""Where a model looks: what each pixel adds to the answer."""

from __future__ import annotations

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from darklens.inference.model import TrainedModel
from darklens.progress import progress_bar

STEPS = 24


def attributions(
    model: TrainedModel,
    images: Tensor,
    targets: list[int],
    *,
    steps: int = STEPS,
    noise: Tensor | None = None,
    catalog: pl.DataFrame | None = None,
) -> np.ndarray:
    """Compute what each pixel of images adds to one output of a model.

    Integrated gradients (Sundararajan et al. 2017, by captum) of the prepared image against an even one, summed over its
    channels, a mean over the members of an ensemble. Pixels that are cropped away have 0.

    Parameters
    ----------
    model
        The model.
    images
        (N, C, H, W), as the detector gave them.
    targets
        Number of the output of each image.
    steps
        Images between the even one and the real one; 24 keep the sum of the map within 2% of the change of the output.
    noise
        Standard deviation of the sky's noise (N, C); None estimates it from the images.
    catalog
        Rows (N,) of a model that takes columns of the catalogue, which stay as they are: maps say what pixels add.

    Returns
    -------
    numpy.ndarray
        Maps (N, H, W), in units of the output.
    """
    maps: list[Tensor] = []
    with progress_bar("computing which pixels matter") as advance:
        for member in model.members:
            maps.append(_attributions(member, images, targets, steps, noise, catalog))
            advance(len(maps), len(model.members))
    return torch.stack(maps).mean(0).numpy()


def _attributions(
    model: TrainedModel,
    images: Tensor,
    targets: list[int],
    steps: int,
    noise: Tensor | None,
    catalog: pl.DataFrame | None,
) -> Tensor:
    from captum.attr import IntegratedGradients

    prepared = model.preprocessing(images.to(model.device).float(), noise=noise).detach().contiguous()
    network: nn.Module = model.network
    found = IntegratedGradients(network).attribute(
        prepared,
        target=targets,
        additional_forward_args=tuple(model.inputs(catalog)) or None,
        n_steps=steps,
        internal_batch_size=max(steps, 64),
    )
    summed = found.detach().float().sum(1, keepdim=True).cpu()
    height, width = images.shape[-2:]
    crop = model.preprocessing.crop
    shown = [min(side, crop or side) for side in (height, width)]
    placed = interpolate(summed, size=shown, mode="bilinear", align_corners=False)
    top, left = (height - shown[0]) // 2, (width - shown[1]) // 2
    return pad(placed, (left, width - shown[1] - left, top, height - shown[0] - top))[:, 0]
