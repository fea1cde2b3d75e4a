"""Smooth lenses that were fitted to a dataset's images, so that one that comes again is not fitted again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class LensFitCache:
    """Parameters of lenses by the row of their image; unknown ones are not a number."""

    def __init__(self, parameters: Tensor | None = None):
        self.parameters = torch.empty(0, 0) if parameters is None else parameters

    def get_or_fit(self, rows: Tensor, images: Tensor, fit: Callable[[Tensor], Tensor]) -> Tensor:
        """Parameters (N, P) of the lenses in ``images`` (N, C, H, W), which are ``rows`` (N,) of the dataset.

        Those not known yet are what ``fit`` says of their images.
        """
        rows = rows.cpu()
        known = torch.zeros(len(rows), dtype=torch.bool)
        inside = rows < len(self.parameters)
        known[inside] = self.parameters[rows[inside]].isfinite().all(1)
        if not known.all():
            fitted = fit(images[~known.to(images.device)]).cpu()
            self._grow(int(rows.max()) + 1, fitted.shape[1])
            self.parameters[rows[~known]] = fitted
        return self.parameters[rows].to(images.device)

    def _grow(self, rows: int, columns: int) -> None:
        if (more := rows - len(self.parameters)) > 0:
            known = self.parameters.reshape(len(self.parameters), columns)
            self.parameters = torch.cat([known, torch.full((more, columns), torch.nan)])
