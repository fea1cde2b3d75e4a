"""Prior distributions: what varies in a preset, and how.

In YAML a value is a number or a mapping with one key, the distribution's name: ``0.5``, ``{uniform: [0.9, 1.6]}``,
``{power_law: [-1.9, 1e8, 1e10]}``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from darklens.errors import PresetError

Floats = NDArray[np.float64]

FARTHEST = 30
"""Standard deviations from the mean to the nearer bound of a truncated Gaussian, up to which its tail has digits."""

WARM_STEPS = 4096
"""Masses at which the density of `WarmPowerLaw` is summed. Over ten decades, its mean is then exact to 2e-5."""


class Prior(Protocol):
    """Describe the distribution of one number."""

    def sample(self, rng: Generator, size: int) -> Floats:
        """Draw ``size`` numbers; return them, (size,)."""
        ...

    @property
    def lowest(self) -> float:
        """Return the lower end of the support."""
        ...


@dataclass(frozen=True)
class Constant(Prior):
    """Always the same number."""

    value: float

    def sample(self, rng: Generator, size: int) -> Floats:
        return np.full(size, float(self.value))

    @property
    def lowest(self) -> float:
        return self.value


@dataclass(frozen=True)
class Uniform(Prior):
    """Uniform between ``low`` and ``high``."""

    low: float
    high: float

    def sample(self, rng: Generator, size: int) -> Floats:
        return rng.uniform(self.low, self.high, size)

    @property
    def lowest(self) -> float:
        return self.low


@dataclass(frozen=True)
class LogUniform(Prior):
    """Uniform in the logarithm between ``low`` and ``high``, both above zero."""

    low: float
    high: float

    def sample(self, rng: Generator, size: int) -> Floats:
        return np.exp(rng.uniform(math.log(self.low), math.log(self.high), size))

    @property
    def lowest(self) -> float:
        return self.low


@dataclass(frozen=True)
class Normal(Prior):
    """Gaussian with ``mean`` and standard deviation ``sigma``."""

    mean: float
    sigma: float

    def sample(self, rng: Generator, size: int) -> Floats:
        return rng.normal(self.mean, self.sigma, size)

    @property
    def lowest(self) -> float:
        return -math.inf


@dataclass(frozen=True)
class TruncatedNormal(Prior):
    """Gaussian with ``mean`` and standard deviation ``sigma``, given that it is between ``low`` and ``high``."""

    mean: float
    sigma: float
    low: float
    high: float

    def sample(self, rng: Generator, size: int) -> Floats:
        from scipy.stats import truncnorm

        ends = (self.low - self.mean) / self.sigma, (self.high - self.mean) / self.sigma
        found: Floats = self.mean + self.sigma * truncnorm.ppf(rng.uniform(size=size), *ends)
        return found.clip(self.low, self.high)

    @property
    def lowest(self) -> float:
        return self.low


@dataclass(frozen=True)
class LogNormal(Prior):
    """Its logarithm is Gaussian about ``log(median)`` with standard deviation ``sigma`` (natural logarithm)."""

    median: float
    sigma: float

    def sample(self, rng: Generator, size: int) -> Floats:
        return self.median * np.exp(rng.normal(0, self.sigma, size))

    @property
    def lowest(self) -> float:
        return 0.0


@dataclass(frozen=True)
class PowerLaw(Prior):
    """Density proportional to ``x**slope`` between ``low`` and ``high``, both above zero; ``slope`` other than -1."""

    slope: float
    low: float
    high: float

    def sample(self, rng: Generator, size: int) -> Floats:
        power = self.slope + 1
        low, high = self.low**power, self.high**power
        return (low + (high - low) * rng.uniform(size=size)) ** (1 / power)

    @property
    def lowest(self) -> float:
        return self.low

    @property
    def mean(self) -> float:
        """Return the expectation."""
        return self._moment(1) / self._moment(0)

    def _moment(self, order: int) -> float:
        power = self.slope + 1 + order
        return math.log(self.high / self.low) if power == 0 else (self.high**power - self.low**power) / power


@dataclass(frozen=True)
class WarmPowerLaw(Prior):
    """A `PowerLaw` of masses that warm dark matter cuts off below a few of its half-mode masses.

    The density is multiplied with ``(1 + (4.2 half_mode / x)**2.5)**-0.2``: what simulations have for subhalos. Source:
    Lovell (2020, ApJ 897, 147), with the parameters of subhaloes.
    """

    slope: float
    low: float
    high: float
    half_mode: float

    def sample(self, rng: Generator, size: int) -> Floats:
        grid, cumulative = self._cumulative(0)
        return np.exp(np.interp(rng.uniform(size=size), cumulative / cumulative[-1], grid))

    @property
    def lowest(self) -> float:
        return self.low

    @property
    def mean(self) -> float:
        """Return the expectation."""
        return float(self._cumulative(1)[1][-1] / self._cumulative(0)[1][-1])

    def suppression(self, mass: Floats) -> Floats:
        """Return the factor on the density, of the shape of ``mass``: 1 where dark matter is as good as cold."""
        return (1 + (4.2 * self.half_mode / mass) ** 2.5) ** -0.2

    def _cumulative(self, order: int) -> tuple[Floats, Floats]:
        """Logarithms of masses, and the integral of the density times mass to a power up to each of them."""
        grid = np.linspace(math.log(self.low), math.log(self.high), WARM_STEPS)
        density = np.exp((self.slope + 1 + order) * (grid - grid[0])) * self.suppression(np.exp(grid))
        parts = (density[1:] + density[:-1]) / 2 * (grid[1] - grid[0])
        return grid, np.concatenate([[0.0], parts.cumsum()]) * self.low**order


def median(prior: Prior) -> float:
    """Return the median of a prior, from a fixed sample of 1,001 numbers."""
    return float(np.median(prior.sample(np.random.default_rng(0), 1001)))


DISTRIBUTIONS: dict[str, type] = {
    "uniform": Uniform,
    "log_uniform": LogUniform,
    "normal": Normal,
    "truncated_normal": TruncatedNormal,
    "log_normal": LogNormal,
    "power_law": PowerLaw,
    "warm_power_law": WarmPowerLaw,
}


def parse_prior(value: object, where: str) -> Prior:
    """Return the prior of a YAML value; ``where`` names the value in the error.

    Raises
    ------
    PresetError
        For an unknown distribution, wrong parameters, or bounds in the wrong order.
    """
    number = _number(value)
    if number is not None:
        return Constant(number)
    if not isinstance(value, Mapping) or len(value) != 1:
        raise PresetError(
            f"{where}: expected a number or one of {', '.join(DISTRIBUTIONS)}, like {{uniform: [0, 1]}}; got {value!r}"
        )
    (name, parameters) = next(iter(value.items()))
    if name not in DISTRIBUTIONS:
        raise PresetError(f"{where}: no distribution {name!r}; there are {', '.join(DISTRIBUTIONS)}")
    wanted = [field.name for field in fields(DISTRIBUTIONS[name])]
    numbers = [_number(p) for p in parameters] if isinstance(parameters, Sequence) else []
    if len(numbers) != len(wanted) or None in numbers or isinstance(parameters, str):
        raise PresetError(f"{where}: {name} takes [{', '.join(wanted)}]; got {parameters!r}")
    prior = DISTRIBUTIONS[name](*numbers)
    _check(prior, where)
    return prior


def _check(prior: Prior, where: str) -> None:
    bounded = Uniform | LogUniform | PowerLaw | TruncatedNormal | WarmPowerLaw
    if isinstance(prior, bounded) and not prior.low < prior.high:
        raise PresetError(f"{where}: the lower bound must be below the upper one; got {prior.low}, {prior.high}")
    if isinstance(prior, LogUniform | PowerLaw | WarmPowerLaw) and prior.low <= 0:
        raise PresetError(f"{where}: the lower bound must be above zero; got {prior.low}")
    if isinstance(prior, PowerLaw) and prior.slope == -1:
        raise PresetError(f"{where}: a slope of exactly -1 is a log_uniform")
    if isinstance(prior, Normal | LogNormal) and prior.sigma < 0:
        raise PresetError(f"{where}: sigma must not be negative; got {prior.sigma}")
    if isinstance(prior, TruncatedNormal):
        if prior.sigma <= 0:
            raise PresetError(f"{where}: sigma must be above zero; got {prior.sigma}")
        away = max(prior.low - prior.mean, prior.mean - prior.high) / prior.sigma
        if away > FARTHEST:
            raise PresetError(f"{where}: the bounds are {away:.0f} sigma from the mean, beyond {FARTHEST}")
    if isinstance(prior, WarmPowerLaw) and prior.half_mode <= 0:
        raise PresetError(f"{where}: half_mode must be above zero; got {prior.half_mode}")
    if isinstance(prior, LogNormal) and prior.median <= 0:
        raise PresetError(f"{where}: the median must be above zero; got {prior.median}")


def _number(value: object) -> float | None:
    """A finite number, also from text like ``1e12``, which YAML 1.1 reads as a string."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
