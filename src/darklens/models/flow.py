"""A network that draws finer images: a mean and a spread for each pixel, and a flow that makes samples of them alike."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from darklens.errors import ModelError
from darklens.models.nafnet import GatedBlock
from darklens.models.upscaling import checked_scale, interpolated, sub_pixel, without_effect

LEAST_SPREAD = 1e-4
"""Of a pixel, in units of the scatter of the images: less is rounding."""


class Flow(nn.Module):
    """Samples by conditional flow matching (Lipman et al. 2022, arXiv:2210.02747) about a mean with a spread.

    One part learns mean and spread of each fine pixel, as if pixels were independent and normal. The other learns the
    velocity that takes such noise to the standardised difference of the truth from the mean, and with it how pixels go
    together. Untrained, it leaves the noise as it is.

    Parameters
    ----------
    in_channels, outputs
        Bands of the images, and four times as many: mean, spread, lowest and highest of the samples.
    scale
        Factor by which images are made finer.
    width, blocks
        Channels and gated blocks of the part for mean and spread.
    flow_width, flow_blocks
        Those of the velocity.
    samples
        Finer images that are drawn of each; say as many as task.samples.
    steps
        Steps in which noise flows to a sample.
    """

    def __init__(
        self,
        in_channels: int,
        outputs: int,
        scale: int = 2,
        *,
        width: int = 32,
        blocks: int = 6,
        flow_width: int = 16,
        flow_blocks: int = 2,
        samples: int = 9,
        steps: int = 3,
    ):
        super().__init__()
        if outputs % 4 or samples < 3 or steps < 1:
            raise ModelError(
                f"network flow draws at least 3 samples in at least 1 step, of a task with task.samples; got {samples} "
                f"samples, {steps} steps and {outputs} outputs, which are no multiple of 4"
            )
        self.scale, self.bands = checked_scale(scale, "flow"), outputs // 4
        self.samples, self.steps = samples, steps
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(GatedBlock(width) for _ in range(blocks)))
        self.finer = sub_pixel(width, scale)
        self.out = nn.Conv2d(width, 2 * self.bands, 3, padding=1)
        without_effect(self.out)
        self.condition = nn.Conv2d(width, flow_width, 1)
        self.join = nn.Conv2d(self.bands + 2, flow_width, 3, padding=1)
        self.flow = nn.Sequential(*(GatedBlock(flow_width) for _ in range(flow_blocks)))
        self.velocity_out = nn.Conv2d(flow_width, self.bands, 3, padding=1)
        nn.init.zeros_(self.velocity_out.weight)
        nn.init.zeros_(self.velocity_out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Return mean, spread, lowest and highest of samples, (N, 4 × bands, H × scale, W × scale), of images (N, C, H, W).

        The noise of each sample is the same for all images and all times, so that an answer depends on its image alone.
        """
        drawn = self.sample(images)
        low, high = drawn.amin(0), drawn.amax(0)
        return torch.cat([drawn.mean(0), drawn.std(0), low, high], dim=1)

    def sample(self, images: Tensor, seed: int = 0) -> Tensor:
        """Draw finer images (samples, N, bands, H × scale, W × scale) of images (N, C, H, W).

        Parameters
        ----------
        images
            Prepared for the network.
        seed
            Of the noise.
        """
        mean, log_spread, condition = self.moments(images)
        found = []
        for number in range(self.samples):
            generator = Generator().manual_seed(seed * 1_000_003 + number)
            noise = torch.randn(mean.shape[1:], generator=generator).to(mean)
            found.append(mean + log_spread.exp() * self.flowed(noise.expand_as(mean), condition))
        return torch.stack(found)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and logarithm of the spread of each fine pixel, (N, bands, …), and features (N, F, …) beside them."""
        features = self.first(images)
        finer = self.finer(features + self.blocks(features))
        shift, log_spread = self.out(finer).chunk(2, dim=1)
        log_spread = (log_spread + math.log(0.1)).clamp(math.log(LEAST_SPREAD), 3.0)
        return interpolated(images, self.bands, self.scale) + shift, log_spread, self.condition(finer)

    def velocity(self, state: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity of standardised differences (N, bands, …) at times (N,) from 0 to 1."""
        when = time[:, None, None, None].expand(-1, 1, *state.shape[-2:])
        joined = self.join(torch.cat([state, when, torch.cos(math.pi * when)], dim=1)) + condition
        found: Tensor = self.velocity_out(self.flow(joined))
        return found

    def flowed(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return what noise (N, bands, …) flows to, by the midpoint method."""
        state, step = noise, 1 / self.steps
        for number in range(self.steps):
            time = torch.full((len(state),), number * step).to(state)
            half = state + step / 2 * self.velocity(state, time, condition)
            state = state + step * self.velocity(half, time + step / 2, condition)
        return state

    def sampling_loss(self, images: Tensor, targets: Tensor, generator: Generator | None = None) -> Tensor:
        """Return the loss of a batch: the likelihood of the targets by mean and spread, and the error of the velocity.

        Parameters
        ----------
        images
            Prepared for the network, (N, C, H, W).
        targets
            Standardised, (N, bands, H × scale, W × scale).
        generator
            Of times and noise, on the CPU; None takes PyTorch's own.
        """
        mean, log_spread, condition = self.moments(images)
        away = (targets - mean) / log_spread.exp()
        likelihood = (0.5 * away.square().clamp_max(1e4) + log_spread).mean()
        end = away.detach().clamp(-20, 20)
        noise = torch.randn(end.shape, generator=generator).to(end)
        time = torch.rand(len(end), generator=generator).to(end)
        part = time[:, None, None, None]
        found = self.velocity((1 - part) * noise + part * end, time, condition)
        return likelihood + (found - (end - noise)).square().mean()
