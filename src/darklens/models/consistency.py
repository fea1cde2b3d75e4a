"""Correct finer images until, degraded again, they agree with the image that they were made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from darklens.physics.degrading import REACH, Response, inner

BLUR = 1.0
"""Standard deviation, fine pixels, of the correlation of errors to begin with: that of a sharp point-spread function."""
LEAST_VARIANCE = 1e-10
"""Of a pixel's noise, in units of the variance of the images: less is rounding, and pairs without noise have none."""
BLUR_REACH = 2
"""Fine pixels on each side of one with whose error its own goes together."""


class ImageConsistency(nn.Module):
    """Mean of the finer image, given what a network believes of it and the image that was seen.

    The network's answer x is taken for the mean of a normal distribution, with a spread for each pixel that the network
    gives as well, and errors of neighbours that go together: C = G diag(spread²) Gᵀ, G a blur that is learned. The image is
    y = A x + n, where A gathers the light of fine pixels and n is noise of variance N, both known from the training pairs.
    Then the mean of x given y is x + C Aᵀ (A C Aᵀ + N)⁻¹ (y - A x), the update of a Kalman filter, or x + G diag(spread) w
    with the w that makes |w|² + |N^-½ (y - A x - A G diag(spread) w)|² least, which conjugate gradients lower in each step:
    after however few, the answer agrees no less with the image than before. Gradients go through them.

    Before `learn`, A is 0 and answers stay as they are. A point-spread function that is not symmetric does not go with
    augmentation by rotation or reflection.

    Parameters
    ----------
    scale
        Factor by which images are made finer.
    steps
        Of conjugate gradients. Few are enough: A gathers light from few pixels.
    """

    weights: Tensor
    noise: Tensor
    offset: Tensor
    dark: Tensor

    def __init__(self, scale: int, steps: int):
        super().__init__()
        side = (2 * REACH + 1) * scale
        self.scale, self.steps = scale, steps
        self.register_buffer("weights", torch.zeros(1, 1, side, side))
        self.register_buffer("noise", torch.tensor([1.0, 0.0]))
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("dark", torch.zeros(()))
        away = torch.arange(-BLUR_REACH, BLUR_REACH + 1) / BLUR
        line = torch.exp(-away.square() / 2)
        self.blur = nn.Parameter((line[:, None] * line / line.sum() ** 2)[None, None])

    def learn(self, response: Response, *, image: tuple[float, float], target: tuple[float, float]) -> None:
        """Take how pixels of one band gather light, and their noise, in the network's units.

        Parameters
        ----------
        response
            In the units of images and targets.
        image, target
            Mean and scale by which images, and finer ones, are standardised.
        """
        (mean, scale), (fine_mean, fine_scale) = image, target
        weights, sky, shot = response.weights[0], float(response.sky[0]), float(response.shot[0])
        self.weights.copy_(weights * (fine_scale / scale))
        self.offset.fill_((fine_mean * float(weights.sum()) - mean) / scale)
        # A standardised pixel z = (y - mean) / scale has the variance (sky + shot · y) / scale².
        # Square roots, so that weights in half precision can hold them.
        self.noise.copy_(torch.tensor([sky / scale**2, shot / scale]).sqrt())
        self.dark.fill_(mean / scale)

    def forward(self, fine: Tensor, spread: Tensor, seen: Tensor) -> Tensor:
        """Return finer images that agree with what was seen.

        Parameters
        ----------
        fine
            What the network makes of the image, standardised, (N, 1, H × scale, W × scale).
        spread
            Standard deviation that it expects of the error of each pixel, positive, of the same shape.
        seen
            The image, standardised, (N, 1, H, W).

        Returns
        -------
        Tensor
            Of the shape of ``fine``, float32.
        """
        with torch.autocast(fine.device.type, enabled=False):
            fine, spread, seen = fine.float(), spread.float(), seen.float()
            light = self._gathered(fine) + self.offset
            sky, shot = self.noise.float().square()
            root = (sky + shot * (light.detach() + self.dark).clamp_min(0)).clamp_min(LEAST_VARIANCE).sqrt()
            away = (inner(seen) - light) / root
            return fine + self._blurred(self._solve(away, spread, root), spread)

    def _solve(self, away: Tensor, spread: Tensor, root: Tensor) -> Tensor:
        """Conjugate gradients for (1 + Fᵀ F) w = Fᵀ r with F = N^-½ A G diag(spread), whose eigenvalues are 1 and above."""
        left = self._scattered(away / root, spread)
        found, way, before = torch.zeros_like(left), left, _dot(left, left)
        for _ in range(self.steps):
            seen = self._gathered(self._blurred(way, spread)) / root
            length = before / (_dot(way, way) + _dot(seen, seen)).clamp_min(LEAST_VARIANCE**2)
            image = way + self._scattered(seen / root, spread)
            found, left = found + length * way, left - length * image
            after = _dot(left, left)
            way, before = left + after / before.clamp_min(LEAST_VARIANCE**2) * way, after
        return found

    def _gathered(self, fine: Tensor) -> Tensor:
        """A x: (N, 1, H - 2 `REACH`, W - 2 `REACH`)."""
        return conv2d(fine, self.weights, stride=self.scale)

    def _blurred(self, parts: Tensor, spread: Tensor) -> Tensor:
        """G diag(spread) w: errors of the fine image, of independent parts w of unit variance."""
        return conv2d(parts * spread, self.blur, padding=BLUR_REACH)

    def _scattered(self, coarse: Tensor, spread: Tensor) -> Tensor:
        """The transpose, diag(spread) Gᵀ Aᵀ, of residuals (N, 1, h, w)."""
        on_fine = conv_transpose2d(coarse, self.weights, stride=self.scale)
        return spread * conv_transpose2d(on_fine, self.blur, padding=BLUR_REACH)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)
