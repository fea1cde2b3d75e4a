"""How well could anyone tell ``no_sub`` from ``cdm``, or from ``axion``, on the fair presets? An upper bound.

    python benchmarks/oracle.py fair-hst fair-euclid --images 256 --models

No classifier can know more than an oracle that is told of each image where the substructure is, or would be, all its
parameters included, and decides by the likelihood whether it is there. What the oracle does not know is the smooth lens
and the source: a signal that another smooth lens can mimic is no signal. So each image of a class is fitted, without
noise, by smooth lenses and Sérsic sources (Levenberg and Marquardt, all 14 parameters, with widths like those of the
preset's priors), and what the best one leaves is the signal: its square root of chi squared is the distance ρ of the
two hypotheses in standard deviations of the noise. The logarithm of the likelihood ratio is then normal with variance
ρ², about ρ²/2 with substructure and -ρ²/2 without, and the AUC of two images with ρ and ρ' is the normal distribution
function at half of the root of ρ² + ρ'²; its mean over all pairs of images is the bound, with a bootstrap interval over
images. A fit that has not found the best smooth lens makes the bound larger, never too small.

With ``--models``, the AUC of the shipped model between the same two classes is beside it, on images with noise of the same
truths and as many without substructure.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from darklens.errors import DarklensError
from darklens.inference.model import load_model
from darklens.progress import progress_bar
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import columns_of, from_frame, select
from darklens.simulation.draw import BLOCK
from darklens.simulation.noise import noise_sigma
from darklens.training.job import machine

FREE = {
    "theta_E": (1e-4, 0.2), "e1": (1e-3, 0.12), "e2": (1e-3, 0.12), "lens_x": (3e-4, 0.05), "lens_y": (3e-4, 0.05),
    "gamma1": (3e-4, 0.04), "gamma2": (3e-4, 0.04), "source_x": (1e-4, 0.2), "source_y": (1e-4, 0.2),
    "source_magnitude": (2e-3, 0.7), "source_R_sersic": (5e-4, 0.09), "source_n_sersic": (5e-3, 0.7),
    "source_e1": (2e-3, 0.14), "source_e2": (2e-3, 0.14),
}  # fmt: skip
"""Parameters of a smooth lens: half a step of the differences that stand for derivatives, and the width of the prior."""

BOUNDS = {"source_R_sersic": (0.02, 2.0), "source_n_sersic": (0.3, 6.0), "theta_E": (0.3, 3.0)}
"""What fits may not leave, as light is not defined or not sampled there."""

ITERATIONS = 16


def expected(simulator: Simulator, rows: Mapping[str, Any]) -> Tensor:
    """Images (N, H, W) without noise, as `simulate` samples them."""
    return simulator.renderer.images(rows, 0, noise=False, compile=True)[:, 0].double()


def smooth(simulator: Simulator, rows: Mapping[str, Any], values: np.ndarray) -> Tensor:
    """Images (N, H, W) of smooth lenses with `FREE` parameters (N, 14), as of the class no_sub."""
    own = {name: value for name, value in rows.items() if not name.startswith(("subhalo", "vortex", "log10"))}
    return expected(
        simulator, own | dict(zip(FREE, values.T, strict=True)) | {"label": np.array(["no_sub"] * len(values))}
    )


def distances(simulator: Simulator, rows: Mapping[str, Any]) -> np.ndarray:
    """ρ (N,) of images with substructure from the nearest smooth lens."""
    truth = expected(simulator, rows)
    sigma = noise_sigma(simulator.preset, truth, columns_of(rows, ["exposure_time"], torch.float64)[0])
    start = np.stack([np.asarray(rows[name], np.float64) for name in FREE], 1)
    steps, widths = (np.array(each) for each in zip(*FREE.values(), strict=True))

    def left(values: np.ndarray) -> np.ndarray:
        """What is left of the truth in units of the noise, and of the prior, (N, pixels + 14)."""
        pixels = ((truth - smooth(simulator, rows, values)) / sigma).flatten(1).numpy()
        return np.concatenate([pixels, (values - start) / widths], 1)

    def within(values: np.ndarray) -> np.ndarray:
        values = values.copy()
        for name, (low, high) in BOUNDS.items():
            place = list(FREE).index(name)
            values[:, place] = values[:, place].clip(low, high)
        for pair in (("e1", "e2"), ("source_e1", "source_e2")):
            places = [list(FREE).index(name) for name in pair]
            modulus = np.hypot(*values[:, places].T).clip(0.6)
            values[:, places] *= (0.6 / modulus)[:, None]
        return values

    # From where it is, and with the mass of the substructure in the main deflector, the better one.
    best = start.copy()
    residual = left(best)
    for factor in (1.01, 1.02, 1.04, 1.07):
        other = start * np.where(np.array(list(FREE)) == "theta_E", factor, 1.0)
        found = left(other)
        better = (found**2).sum(1) < (residual**2).sum(1)
        best[better], residual[better] = other[better], found[better]
    damping = np.full(len(best), 1e-2)
    for _ in range(ITERATIONS):
        columns = []
        for place, step in enumerate(steps):
            up, down = best.copy(), best.copy()
            up[:, place] += step
            down[:, place] -= step
            columns.append((left(up) - left(down)) / (2 * step))
        jacobian = np.stack(columns, 2)
        normal = np.einsum("npi,npj->nij", jacobian, jacobian)
        gradient = np.einsum("npi,np->ni", jacobian, residual)
        damped = normal * (1 + damping[:, None, None] * np.eye(len(FREE)))
        other = within(best - np.linalg.solve(damped, gradient[..., None])[..., 0])
        found = left(other)
        before, after = (residual**2).sum(1), (found**2).sum(1)
        better = after < before
        best[better], residual[better] = other[better], found[better]
        damping = np.where(better, damping / 5, damping * 8).clip(1e-7, 1e4)
        if (np.abs(after - before)[better] < 1e-3 * before[better] + 1e-2).all() and better.mean() > 0.3:
            break
    rho: np.ndarray = np.sqrt((residual**2).sum(1))
    return rho


def bound(rho: np.ndarray, rng: np.random.Generator, draws: int = 1000) -> tuple[float, float, float]:
    """The oracle's AUC and its 95% interval over images."""
    pairs = torch.special.ndtr(torch.from_numpy(np.sqrt(rho[:, None] ** 2 + rho[None, :] ** 2) / 2)).numpy()
    np.fill_diagonal(pairs, np.nan)
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, len(rho), len(rho))
        values.append(np.nanmean(pairs[np.ix_(chosen, chosen)]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(np.nanmean(pairs)), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="+")
    parser.add_argument("--images", type=int, default=256, help="of each class")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--models", action="store_true", help="compare with the shipped models")
    arguments = parser.parse_args()
    print(f"{machine()}; {arguments.images} images of each class, seed {arguments.seed}")
    for name in arguments.presets:
        preset = load_preset(name)
        simulator = Simulator(preset, arguments.seed, compile=True)
        catalog = from_frame(simulator.catalog(math.ceil(arguments.images * len(preset.labels) / BLOCK) * BLOCK))
        of = {
            label: np.flatnonzero(np.asarray(catalog["label"]) == label)[: arguments.images] for label in preset.labels
        }
        scores = {}
        if arguments.models:
            model = load_model(f"substructure-{name}")
            for label, chosen in of.items():
                images = simulator.renderer.images(select(catalog, chosen), arguments.seed, noise=True, compile=True)
                scores[label] = model.predict(images).array
        for label in preset.labels[1:]:
            rho = []
            with progress_bar(f"{name} {label}") as advance:
                for part in np.array_split(of[label], max(1, arguments.images // 32)):
                    rho.append(distances(simulator, select(catalog, part)))
                    advance(sum(map(len, rho)), arguments.images)
            each = np.concatenate(rho)
            value, low, high = bound(each, np.random.default_rng(0))
            quantiles = ", ".join(f"{q:.1f}" for q in np.quantile(each, [0.05, 0.25, 0.5, 0.75, 0.95]))
            print(f"{name} no_sub against {label}: AUC at most {value:.4f} ({low:.4f} to {high:.4f}); ρ {quantiles}")
            if arguments.models:
                names = list(model.classes)
                array = np.concatenate([scores["no_sub"], scores[label]])
                both = array[:, [names.index("no_sub"), names.index(label)]]
                kinds = np.repeat([0, 1], [len(scores["no_sub"]), len(scores[label])])
                reached = roc_auc_score(kinds, both[:, 1] / both.sum(1).clip(1e-300))
                print(f"  substructure-{name} on images of these truths: {reached:.4f}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except DarklensError as error:
        raise SystemExit(str(error)) from error
