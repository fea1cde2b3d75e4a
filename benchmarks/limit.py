"""How well could anyone tell ``no_sub`` from ``axion`` on Model I? The best classifier, from the likelihood itself.

    python benchmarks/limit.py --images 240                        # about 45 minutes on one core
    python benchmarks/limit.py --images 240 --model substructure-model-1

In Model I the deflector, the source's shape and the noise are known; free are the source's position and, for an axion
vortex, its direction and the axion mass. For every image the likelihoods of both classes are integrated over what is free,
by importance sampling about all modes that a grid and Gauss-Newton steps find: both classes begin at the nodes of a grid,
and nothing of the truth is used. The exposure time is taken as known, which the image itself tells to a fraction of a per
cent: the limit is, if anything, a little too good.

Printed are the error of the best classifier, twice: the mean of its own posterior error probability, and its mistakes;
and, with ``--model``, the mistakes of a trained model on the same images, asked for these two classes alone.
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np
import torch
from torch import Tensor

from darklens.evaluation.bootstrap import Metric, intervals, mean_statistic
from darklens.evaluation.classification import auc_statistic
from darklens.physics import exponential_light, point_mass_deflection, shear_deflection, sie_deflection
from darklens.physics.coordinates import pixel_coordinates
from darklens.physics.deflectors import line_mass_deflection, vortex_point_masses
from darklens.physics.psf import convolve_separable, gaussian_psf_taps
from darklens.simulation import Simulator, load_preset
from darklens.training.job import machine

CROP, SCALE, BACKGROUND = 80, 0.05, 0.01
HALF_SOURCE, LOW, HIGH = 0.35, -24.0, -22.0
STEP = torch.tensor([2e-4, 2e-4, 1e-3, 2e-3], dtype=torch.float64)
PRIOR_PRECISION = torch.tensor(
    [3 / HALF_SOURCE**2, 3 / HALF_SOURCE**2, 12 / math.pi**2, 12 / (HIGH - LOW) ** 2]
).double()
MODES, DRAWS = 8, 128
SOURCES, ANGLES, MASSES, REFINED = 9, 24, 24, 96


class ModelI:
    """Expected counts and likelihoods of one image, from the preset's numbers."""

    def __init__(self, image: Tensor, row: dict[str, float], vortex_theta_E: float):
        self.counts = image.long()
        self.time = row["exposure_time"]
        self.row, self.vortex_theta_E = row, torch.tensor([vortex_theta_E], dtype=torch.float64)
        x, y = pixel_coordinates(CROP, SCALE, dtype=torch.float64)
        self.x, self.y = x, y
        t = {k: torch.tensor(float(v), dtype=torch.float64) for k, v in row.items() if isinstance(v, float)}
        self.t = t
        ax, ay = sie_deflection(x, y, x0=t["lens_x"], y0=t["lens_y"], theta_E=t["theta_E"], e1=t["e1"], e2=t["e2"])
        bx, by = shear_deflection(x, y, t["gamma1"], t["gamma2"])
        self.main = ax + bx, ay + by
        self.taps = gaussian_psf_taps(0.087 / SCALE, 3)
        self.table = self._log_probabilities(int(image.max()))

    def _log_probabilities(self, most: int) -> Tensor:
        """log p(k | expected counts), (steps of one half, k): a Gaussian, cut at zero, then a Poisson draw."""
        top = 1.3 * most + 60
        expected = torch.arange(0, 2 * top, dtype=torch.float64) / 2
        x = torch.arange(-6, 2 * top + 12 * math.sqrt(top), dtype=torch.float64) / 2
        width = torch.sqrt(expected + (BACKGROUND * self.time) ** 2)[:, None]
        normal = torch.exp(-0.5 * ((x - expected[:, None]) / width).square()) / (width * math.sqrt(2 * math.pi)) * 0.5
        below = 0.5 * torch.erfc((expected[:, None] - x[0] + 0.25) / (width * math.sqrt(2)))
        k = torch.arange(most + 1, dtype=torch.float64)
        mean = x.clamp_min(1e-12)[:, None]
        poisson = torch.exp(k * mean.log() - mean - torch.lgamma(k + 1))
        return torch.log(normal @ poisson + below * (k == 0) + 1e-300)

    def expected(self, free: Tensor, exact: bool = True) -> Tensor:
        """Expected counts (B, H, W) for free parameters (B, 2) or (B, 4)."""
        bx, by = self.x - self.main[0], self.y - self.main[1]
        if free.shape[1] == 4:
            zero = torch.zeros(len(free), dtype=torch.float64)
            half = 0.03 * 10 ** (-22 - free[:, 3])
            theta = self.vortex_theta_E.expand(len(free))
            if exact:
                masses = vortex_point_masses(zero, zero, half, free[:, 2], theta, 100)
                wx, wy = point_mass_deflection(
                    self.x[None, ..., None], self.y[None, ..., None], *(m[:, None, None, :] for m in masses)
                )
                wx, wy = wx.sum(-1), wy.sum(-1)
            else:
                line = {"x0": zero, "y0": zero, "half_length": half, "phi": free[:, 2], "theta_E": theta}
                wx, wy = line_mass_deflection(self.x, self.y, **{k: v[:, None, None] for k, v in line.items()})
            bx, by = bx - wx, by - wy
        sx, sy = free[:, 0, None, None], free[:, 1, None, None]
        t = self.t
        source = {name: t[f"source_{name}"] for name in ("amp", "R_sersic", "e1", "e2")}
        light = exponential_light(bx, by, x0=sx, y0=sy, **source)
        light = light.expand(len(free), -1, -1)
        return convolve_separable(light, self.taps) * (SCALE**2 * self.time)

    def log_likelihood(self, expected: Tensor) -> Tensor:
        """log p of the image for expected counts (B, H, W), (B,)."""
        return self._lookup(expected)[0].sum((1, 2))

    def _lookup(self, expected: Tensor) -> tuple[Tensor, Tensor]:
        place = (2 * expected).clamp(0, len(self.table) - 1.001)
        index = place.long()
        low, high = self.table[index, self.counts], self.table[index + 1, self.counts]
        return low + (place - index) * (high - low), 2 * (high - low)

    def climb(self, free: Tensor, steps: int, moving: int, exact: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """Gauss-Newton on the first ``moving`` parameters: where it ends, log posterior there, and the information."""
        best, best_value, information = free.clone(), torch.full((len(free),), -math.inf).double(), None
        trial, damping = free.clone(), torch.full((len(free),), 1e-3).double()
        kept = [torch.zeros(len(free), moving).double(), torch.zeros(len(free), moving, moving).double()]
        for _ in range(steps):
            here = self.expected(trial, exact)
            slopes = []
            for k in range(moving):
                moved = trial.clone()
                moved[:, k] += STEP[k]
                slopes.append((self.expected(moved, exact) - here) / STEP[k])
            jacobian = torch.stack([s.expand_as(here) for s in slopes], 1).flatten(2)
            value, score = self._lookup(here)
            total = value.sum((1, 2)) + self._log_prior(trial)
            weight = 1 / (2 * here + (BACKGROUND * self.time) ** 2)
            fisher = (jacobian * weight.flatten(1)[:, None]) @ jacobian.mT + torch.diag(PRIOR_PRECISION[:moving])
            gradient = (jacobian @ score.flatten(1)[..., None])[..., 0]
            better = total > best_value
            best = torch.where(better[:, None], trial, best)
            best_value = torch.where(better, total, best_value)
            kept[0] = torch.where(better[:, None], gradient, kept[0])
            kept[1] = torch.where(better[:, None, None], fisher, kept[1])
            damping = torch.where(better, damping / 5, damping * 8)
            damped = kept[1] * (1 + damping[:, None, None] * torch.eye(moving).double())
            trial = best.clone()
            trial[:, :moving] += torch.linalg.solve(damped, kept[0][..., None])[..., 0]
            trial[:, :2] = trial[:, :2].clamp(-HALF_SOURCE, HALF_SOURCE)
            if trial.shape[1] == 4:
                trial[:, 3] = trial[:, 3].clamp(LOW, HIGH)
        information = kept[1]
        return best, best_value, information

    def _log_prior(self, free: Tensor) -> Tensor:
        inside = (free[:, :2].abs() <= HALF_SOURCE).all(1)
        density = -2 * math.log(2 * HALF_SOURCE)
        if free.shape[1] == 4:
            inside &= (free[:, 3] >= LOW) & (free[:, 3] <= HIGH)
            density -= math.log(math.pi) + math.log(HIGH - LOW)
        return torch.where(inside, density, -math.inf)

    def log_evidence(self, modes: Tensor, information: Tensor, rng: torch.Generator) -> float:
        """Log of the likelihood integrated over the prior, by draws from t distributions about the modes."""
        dimension, degrees = modes.shape[1], 5
        # The information of the linearised model is a little too sharp; wider proposals are safe.
        root = torch.linalg.cholesky(torch.linalg.inv(information) * 1.5)
        chosen = torch.arange(DRAWS) % len(modes)
        normal = torch.randn(DRAWS, dimension, generator=rng, dtype=torch.float64)
        chi2 = (torch.randn(DRAWS, degrees, generator=rng, dtype=torch.float64) ** 2).sum(1) / degrees
        draws = modes[chosen] + ((root[chosen] @ normal[..., None])[..., 0] / chi2.sqrt()[:, None])
        if dimension == 4:
            draws[:, 2] %= math.pi
        density = []
        for mode, lower in zip(modes, root, strict=True):
            for turn in (-math.pi, 0.0, math.pi) if dimension == 4 else (0.0,):
                away = draws - mode
                if dimension == 4:
                    away[:, 2] += turn
                scaled = torch.linalg.solve_triangular(lower, away.T, upper=False).square().sum(0)
                constant = (
                    math.lgamma((degrees + dimension) / 2)
                    - math.lgamma(degrees / 2)
                    - dimension / 2 * math.log(degrees * math.pi)
                    - float(lower.diagonal().log().sum())
                )
                density.append(constant - (degrees + dimension) / 2 * torch.log1p(scaled / degrees))
        proposal = torch.logsumexp(torch.stack(density), 0) - math.log(len(modes))
        prior = self._log_prior(draws)
        value = torch.full((DRAWS,), -math.inf).double()
        usable = prior.isfinite()
        parts = draws[usable].split(32)
        if parts and len(draws[usable]):
            value[usable] = torch.cat([self.log_likelihood(self.expected(part)) for part in parts])
        return float(torch.logsumexp(value + prior - proposal, 0) - math.log(DRAWS))


def log_odds(model: ModelI, rng: torch.Generator) -> float:
    """log p(image | axion) - log p(image | no_sub), from the image and what is known of all images alone."""
    smooth, information = modes(model, source_grid())
    plain = model.log_evidence(smooth, information, rng)
    return model.log_evidence(*modes(model, vortex_grid(smooth[0])), rng) - plain


def source_grid() -> Tensor:
    """Source positions (S², 2) that cover the prior."""
    side = torch.linspace(-HALF_SOURCE, HALF_SOURCE, SOURCES, dtype=torch.float64)
    return torch.cartesian_prod(side, side)


def vortex_grid(source: Tensor) -> Tensor:
    """Directions and masses that cover the prior, behind them a source where the smooth lens has it; (A M, 4)."""
    angles = torch.linspace(0, math.pi, ANGLES + 1, dtype=torch.float64)[:-1]
    masses = torch.linspace(LOW + 0.04, HIGH - 0.04, MASSES, dtype=torch.float64)
    vortices = torch.cartesian_prod(angles, masses)
    return torch.cat([source.expand(len(vortices), -1), vortices], dim=1)


def modes(model: ModelI, grid: Tensor) -> tuple[Tensor, Tensor]:
    """The modes that climbing from a grid (P, 2) or (P, 4) leads to, the highest first, and the information there.

    First the source alone moves, then all that is free, of the best places and with a vortex that is a line.
    """
    coarse = [model.climb(part, 3, 2, exact=False) for part in grid.split(96)]
    places = _highest(*(torch.cat(parts) for parts in list(zip(*coarse, strict=True))[:2]))[:REFINED]
    places = _highest(*model.climb(places, 8, grid.shape[1], exact=False)[:2])[:MODES]
    found, values, information = model.climb(places, 8, grid.shape[1])
    order = values.argsort(descending=True)
    order = order[values[order] > values.max() - 15]
    return found[order], information[order]


def _highest(places: Tensor, values: Tensor) -> Tensor:
    return places[values.argsort(descending=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=240, help="test images of the two classes together")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--model", help="a trained model to compare with")
    arguments = parser.parse_args()
    simulator = Simulator(load_preset("model-1"), arguments.seed)
    rng = torch.Generator().manual_seed(arguments.seed)
    odds, truths, pictures = [], [], []
    started, number = time.perf_counter(), 0
    while len(odds) < arguments.images:
        images, rows = simulator.block(number)
        number += 1
        edge = (images.shape[-1] - CROP) // 2
        for i, label in enumerate(rows["label"]):
            if label == "cdm" or len(odds) == arguments.images:
                continue
            row = {name: values[i] for name, values in rows.items()}
            row = {k: float(v) if np.issubdtype(type(v), np.floating) else v for k, v in row.items()}
            strength = float(np.nanmax(np.asarray(rows["vortex_theta_E"], dtype=float)))  # the same in all images
            model = ModelI(images[i, 0, edge : edge + CROP, edge : edge + CROP], row, strength)
            odds.append(log_odds(model, rng))
            truths.append(label == "axion")
            pictures.append(images[i])
            if len(odds) % 20 == 0:
                print(f"{len(odds)} images, {time.perf_counter() - started:.0f} s", flush=True)
    ratio, truth = np.array(odds), np.array(truths)
    posterior = 1 / (1 + np.exp(-np.clip(ratio, -700, 700)))
    expected_error = np.minimum(posterior, 1 - posterior)
    figures = {
        "limit: expected error": mean_statistic(expected_error),
        "limit: mistakes": mean_statistic(((posterior > 0.5) != truth).astype(float)),
        "limit: AUC": auc_statistic(ratio, truth.astype(float)),
    }
    if arguments.model:
        from darklens.inference.model import load_model

        trained = load_model(arguments.model)
        p = trained.predict(torch.stack(pictures)).probabilities
        assert p is not None
        pair = p[:, trained.classes.index("axion")] / (
            p[:, trained.classes.index("axion")] + p[:, trained.classes.index("no_sub")]
        ).clip(1e-300)
        figures["model: mistakes"] = mean_statistic(((pair > 0.5) != truth).astype(float))
        figures["model: AUC"] = auc_statistic(pair, truth.astype(float))
    print(f"{machine()}; {len(ratio)} images of model-1, seed {arguments.seed}, {time.perf_counter() - started:.0f} s")
    for name, interval in intervals([Metric(name, name, each) for name, each in figures.items()], len(ratio)).items():
        print(f"{name:24} {interval}")


if __name__ == "__main__":
    main()
