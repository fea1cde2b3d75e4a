"""What a masked autoencoder makes of hidden parts of images."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from darklens.errors import ModelError
from darklens.inference.model import TrainedModel
from darklens.models.masked import MaskedAutoencoder


@torch.inference_mode()
def reconstructions(model: TrainedModel, images: Tensor, *, noise: Tensor | None = None) -> np.ndarray:
    """Rebuild images of which a quarter is shown, every second patch (or pixel) of every second row.

    Parameters
    ----------
    model
        A masked autoencoder; of an ensemble, the first member.
    images
        (N, C, H, W), as the detector gave them.
    noise
        Standard deviation of the sky's noise (N, C); None estimates it from the images.

    Returns
    -------
    numpy.ndarray
        (N, 3, H, W) of the first channel: the prepared image, 1 where it was hidden and 0 elsewhere, and the image with
        what was rebuilt in the place of hidden pixels.

    Raises
    ------
    ModelError
        If the model rebuilds nothing.
    """
    member = model.members[0]
    network = member.network
    if not isinstance(network, MaskedAutoencoder):
        raise ModelError(f"{type(network).__name__} rebuilds no images; a masked-autoencoder does")
    prepared = member.preprocessing(images.to(member.device), noise=noise)
    hidden = network.regular_masks(prepared)[0]
    rebuilt = torch.where(hidden, network.rebuild(prepared, hidden), prepared)
    return torch.cat([prepared[:, :1], hidden.to(prepared), rebuilt[:, :1]], dim=1).float().cpu().numpy()
