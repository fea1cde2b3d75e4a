"""Bootstrap intervals of figures that can be computed with weights: all resamples at once, no loop over metrics.

A bootstrap resample is a vector of counts, how often each image was drawn. A figure that takes such weights, of shape
(rounds, N), gives its value in every resample by one matrix operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from darklens.progress import progress_bar

Floats = NDArray[np.float64]
Figure = Callable[[Floats], Floats]
"""From weights (rounds, N) to values (rounds,)."""

ROUNDS = 1000
_CHUNK = 2**24


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% percentile bootstrap interval, over ``n`` test images."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def intervals(figures: dict[str, Figure], n: int, seed: int = 0, rounds: int = ROUNDS) -> dict[str, Interval]:
    """Each figure over ``n`` images with its interval; the same resamples serve all figures."""
    values = {name: float(figure(np.ones((1, n)))[0]) for name, figure in figures.items()}
    samples: dict[str, list[Floats]] = {name: [] for name in figures}
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // n)
    with progress_bar("bootstrapping the intervals") as advance:
        for start in range(0, rounds, step):
            weights = rng.multinomial(n, np.full(n, 1 / n), size=min(step, rounds - start)).astype(np.float64)
            for name, figure in figures.items():
                samples[name].append(figure(weights))
            advance(min(start + step, rounds), rounds)
    found = {}
    for name, value in values.items():
        # A resample that misses a class has no AUC; it is left out.
        drawn = np.concatenate(samples[name])
        low, high = np.nanquantile(drawn, [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
        found[name] = Interval(value, float(low), float(high), n)
    return found
