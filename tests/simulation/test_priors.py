import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from darklens.errors import PresetError
from darklens.simulation.priors import (
    LogNormal,
    LogUniform,
    Normal,
    PowerLaw,
    TruncatedNormal,
    Uniform,
    WarmPowerLaw,
    parse_prior,
)


def power_law(slope, low, high):
    """Cumulative distribution of a density that goes as ``x**slope``, by its integral."""
    power = slope + 1
    return lambda x: (np.asarray(x) ** power - low**power) / (high**power - low**power)


def warm(slope, low, high, half_mode, power=0):
    """Integral of the suppressed density, times a power of the mass."""

    def density(log_m):
        m = np.exp(log_m)
        return m ** (slope + 1 + power) * (1 + (4.2 * half_mode / m) ** 2.5) ** -0.2

    return integrate.quad(density, np.log(low), np.log(high), epsrel=1e-10)[0]


def warm_law(slope, low, high, half_mode):
    """Cumulative distribution, between masses at which it is integrated."""
    grid = np.geomspace(low, high, 200)
    below = np.array([warm(slope, low, m, half_mode) for m in grid])
    return lambda x: np.interp(x, grid, below / below[-1])


LAWS = [
    ({"uniform": [-3, 2]}, Uniform(-3, 2), stats.uniform(-3, 5).cdf, -3),
    ({"log_uniform": [0.02, "1e3"]}, LogUniform(0.02, 1000), stats.loguniform(0.02, 1000).cdf, 0.02),
    ({"normal": [-1.5, 0.3]}, Normal(-1.5, 0.3), stats.norm(-1.5, 0.3).cdf, -np.inf),
    ({"log_normal": [2.5, 0.7]}, LogNormal(2.5, 0.7), stats.lognorm(0.7, scale=2.5).cdf, 0),
    ({"power_law": [-1.9, 1, 50]}, PowerLaw(-1.9, 1, 50), power_law(-1.9, 1, 50), 1),
    ({"truncated_normal": [1, 2, 0.5, 4]}, TruncatedNormal(1, 2, 0.5, 4), stats.truncnorm(-0.25, 1.5, 1, 2).cdf, 0.5),
    ({"truncated_normal": [0, 1, 8, 9]}, TruncatedNormal(0, 1, 8, 9), stats.truncnorm(8, 9).cdf, 8),
    ({"warm_power_law": [-1.9, 1, 500, 3]}, WarmPowerLaw(-1.9, 1, 500, 3), warm_law(-1.9, 1, 500, 3), 1),
    ({"power_law": [1.5, 0.5, 3]}, PowerLaw(1.5, 0.5, 3), power_law(1.5, 0.5, 3), 0.5),
]


@pytest.mark.parametrize(("value", "prior", "law", "lowest"), LAWS, ids=lambda v: str(v) if isinstance(v, dict) else "")
def test_numbers_follow_their_distribution(value, prior, law, lowest):
    assert parse_prior(value, "there") == prior
    assert prior.lowest == lowest
    numbers = prior.sample(np.random.default_rng(3), 20_000)
    assert numbers.shape == (20_000,)
    assert stats.kstest(numbers, law).pvalue > 1e-3


def test_constant_is_always_its_number():
    prior = parse_prior("-2.5e1", "there")
    assert_allclose(prior.sample(np.random.default_rng(0), 3), [-25, -25, -25], rtol=0)
    assert prior.lowest == -25


@pytest.mark.parametrize("slope", [-1.9, -2.0, 0.0, 1.3])
def test_mean_of_a_power_law_is_its_integral(slope):
    moments = [integrate.quad(lambda x, k=k: x ** (slope + k), 2, 30)[0] for k in (0, 1)]
    assert_allclose(PowerLaw(slope, 2, 30).mean, moments[1] / moments[0], rtol=1e-9)


def test_warm_dark_matter_has_fewer_light_subhalos_and_as_many_heavy_ones():
    prior = WarmPowerLaw(-1.9, 1e6, 1e10, 1e7)
    assert_allclose(prior.mean, warm(-1.9, 1e6, 1e10, 1e7, 1) / warm(-1.9, 1e6, 1e10, 1e7), rtol=1e-5)
    light, heavy = prior.suppression(np.array([1e6, 1e10]))
    assert_allclose(light, (1 + 42**2.5) ** -0.2, rtol=1e-12)
    assert_allclose(heavy, 1, rtol=1e-5)
    assert_allclose(WarmPowerLaw(-1.9, 1e6, 1e10, 1.0).mean, PowerLaw(-1.9, 1e6, 1e10).mean, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"power_law": [-1, 1, 2]}, "there: a slope of exactly -1 is a log_uniform"),
        ({"log_uniform": [0, 2]}, "there: the lower bound must be above zero"),
        ({"uniform": [2, 2]}, "there: the lower bound must be below the upper one"),
        ({"normal": [0, -1]}, "there: sigma must not be negative"),
        ({"log_normal": [-1, 1]}, "there: the median must be above zero"),
        ({"truncated_normal": [0, 0, -1, 1]}, "there: sigma must be above zero"),
        ({"truncated_normal": [0, 1, 2, 1]}, "there: the lower bound must be below the upper one"),
        ({"truncated_normal": [0, 1, -50, -40]}, "there: the bounds are 40 sigma from the mean"),
        ({"warm_power_law": [-1.9, 0, 1, 1]}, "there: the lower bound must be above zero"),
        ({"warm_power_law": [-1.9, 1, 10, 0]}, "there: half_mode must be above zero"),
        ({"gamma": [1, 2]}, "there: no distribution 'gamma'"),
        ({"uniform": [1, float("nan")]}, r"there: uniform takes \[low, high\]"),
        (True, "there: expected a number"),
    ],
)
def test_impossible_prior_is_refused(value, message):
    with pytest.raises(PresetError, match=message):
        parse_prior(value, "there")
