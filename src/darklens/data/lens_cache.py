"""Keep the smooth lenses that were fitted to the images of a dataset, so that no image is fitted twice in a training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class LensFitCache:
    """Fitted lens parameters by the row of their image.

    Parameters
    ----------
    parameters
        Parameters (rows, P) from a checkpoint, on the CPU; nan where no lens is fitted yet. None begins without any.
    """

    def __init__(self, parameters: Tensor | None = None):
        self.parameters = torch.empty(0, 0) if parameters is None else parameters

    def get_or_fit(
        self,
        rows: Tensor,
        images: Tensor,
        fit: Callable[[Tensor, Tensor | None], Tensor],
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return the lens parameters of images; fit those that are not in the cache, and add them to it.

        Parameters
        ----------
        rows
            Row of each image in its dataset, (N,) integers.
        images
            (N, C, H, W), on any device.
        fit
            Returns the parameters (n, P) of images (n, C, H, W) with a noise of their sky.
        noise
            Standard deviation of the sky's noise (N, C); None if it is to be estimated.

        Returns
        -------
        Tensor
            Parameters (N, P), on the device of the images.
        """
        rows = rows.cpu()
        known = torch.zeros(len(rows), dtype=torch.bool)
        inside = rows < len(self.parameters)
        known[inside] = self.parameters[rows[inside]].isfinite().all(1)
        if not known.all():
            unknown = ~known.to(images.device)
            fitted = fit(images[unknown], None if noise is None else noise[unknown]).cpu()
            self._grow(int(rows.max()) + 1, fitted.shape[1])
            self.parameters[rows[~known]] = fitted
        return self.parameters[rows].to(images.device)

    def _grow(self, rows: int, columns: int) -> None:
        if (more := rows - len(self.parameters)) > 0:
            known = self.parameters.reshape(len(self.parameters), columns)
            self.parameters = torch.cat([known, torch.full((more, columns), torch.nan)])
