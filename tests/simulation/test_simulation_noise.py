from dataclasses import replace

import numpy as np
import pytest
import torch
from lenstronomy.SimulationAPI.observation_api import SingleBand
from numpy.testing import assert_allclose
from scipy import integrate, stats

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset, noise
from darklens.simulation.library import resolve_preset
from darklens.simulation.noise import add_noise, expected_image, noise_sigma


@pytest.mark.usefixtures("both_ways")
def test_noise_of_model_1_is_applied_twice():
    simulator = Simulator(resolve_preset("model-1") | {"pixels": 64}, seed=0)
    row = simulator.catalog(1)
    expected = simulator.render(row, noise=False)[0, 0]
    many = row[[0] * 400].with_columns(id=np.arange(400))
    noisy = simulator.render(many)[:, 0]
    variance = simulator.noise_sigma(row, expected[None])[0].square()
    pull = (noisy.mean(0) - expected) / (variance / 400).sqrt()
    assert pull.abs().max() < 5.5
    ratio = noisy.var(0) / variance
    sky = expected < 20
    for part in (sky, ~sky, expected > 100):
        assert part.sum() > 300
        assert abs(ratio[part].mean() - 1) < 0.02
    assert torch.equal(noisy, noisy.round())
    assert noisy.min() >= 0


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("exposures", [1, 2])
def test_expectation_and_sigma_of_noise_applied_twice_are_those_of_many_draws(exposures):
    """From the sky, where half of the Gaussian is clipped, to bright pixels; images are counts of one exposure."""
    content = resolve_preset("model-1")
    content["instrument"] |= {"exposures": exposures, "exposure_time": 1500}
    preset, draws = load_preset(content), 100_000
    flux, times = torch.tensor([0.0, 2e-3, 1e-2, 0.05, 3.0]), torch.tensor([1500.0])
    expected = expected_image(preset, flux[None, None], times)
    sigma = noise_sigma(preset, expected, times)[0, 0].double().numpy()
    many = flux.expand(200, draws // 200, 5)
    noisy = add_noise(preset, 5, many, times=times.expand(200), ids=np.arange(200)).double().numpy().reshape(-1, 5)
    assert_allclose((noisy.mean(0) - expected[0, 0].numpy()) / sigma * draws**0.5, 0, atol=5)
    assert_allclose(noisy.std(0) / sigma, 1, atol=5 * np.sqrt(2 / draws))
    # The sky: a Gaussian of 15 counts, of which the negative half is zero, has the mean 15 / √(2π).
    assert_allclose(expected[0, 0, 0], 15 / np.sqrt(2 * np.pi), rtol=1e-6)
    assert_allclose(expected[0, 0, 4], 1500 * 3, rtol=1e-6)
    assert_allclose(sigma[4], np.sqrt(4500 * (1 + 1 / exposures) + 15**2), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_variance_of_noise_applied_twice_is_the_integral_over_the_clipped_gaussian(dtype):
    """Nothing is lost to rounding from the sky to the brightest pixels, and no background leaves no nan."""
    preset, times = load_preset("model-1"), torch.tensor([2500.0], dtype=dtype)
    flux = torch.tensor([[[0.0, 1e-4, 4e-3, 0.03, 1.0, 400.0]]], dtype=dtype)
    sigma = noise_sigma(preset, expected_image(preset, flux, times), times)[0, 0]
    for found, counts in zip(sigma, flux[0, 0].double() * 2500, strict=True):
        law = stats.norm(counts, np.sqrt(counts + 25**2))
        points = np.linspace(max(0, law.ppf(1e-14)), law.isf(1e-14), 20_001)
        first, second = (integrate.simpson(points**k * law.pdf(points), x=points) for k in (1, 2))
        assert_allclose(found, np.sqrt(first + second - first**2), rtol=2e-5)
    dark = load_preset(
        resolve_preset("model-1") | {"instrument": resolve_preset("model-1")["instrument"] | {"background_rms": 0}}
    )
    expected = expected_image(dark, flux, times)
    assert_allclose(expected[0, 0, [0, 4]], [0, 2500], rtol=1e-6, atol=1e-12)
    assert_allclose(noise_sigma(dark, expected, times)[0, 0, [0, 4, 5]], [0, 5000**0.5, 2e6**0.5], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("both_ways")
def test_physical_noise_has_the_mean_and_variance_of_the_instrument():
    simulator = Simulator("model-3-noisy", seed=0)
    row = simulator.catalog(1)
    expected = simulator.render(row, noise=False)[0, 0]
    noisy = simulator.render(row[[0] * 600].with_columns(id=np.arange(600)))[:, 0]
    sigma = simulator.noise_sigma(row, expected[None])[0]
    assert ((noisy.mean(0) - expected) / sigma * 600**0.5).abs().max() < 5.5
    ratio = (noisy.var(0) / sigma.square()).flatten()
    assert abs(ratio.mean() - 1) < 5 * (2 / 600 / len(ratio)) ** 0.5
    assert (ratio - 1).abs().max() < 6 * (2 / 600) ** 0.5


def test_doubled_models_are_twice_the_noise_free_image():
    rows = Simulator("model-3", seed=0).catalog(3)
    doubled = Simulator("model-3").render(rows)
    assert_allclose(doubled, 2 * Simulator("model-3-noisy").render(rows, noise=False), rtol=1e-6)


BAND = {
    "pixel_scale": 0.08, "exposure_time": 40.0, "magnitude_zero_point": 25.96, "read_noise": 9.0, "ccd_gain": 2.5,
    "sky_brightness": 21.3, "num_exposures": 5, "seeing": 0.2,
}  # fmt: skip


def stacked():
    """An instrument of several exposures, in which read-out and photons both matter."""
    content = resolve_preset("model-3-noisy")
    content["instrument"] |= {"exposure_time": 40, "exposures": 5, "read_noise": 9, "sky_brightness": 21.3}
    return load_preset(content)


def variance_by_lenstronomy(flux):
    """Of a stack of exposures: background and photons, which lenstronomy counts for the whole exposure time."""
    band = SingleBand(**BAND)
    return band.background_noise**2 + band.flux_noise(flux) ** 2


def test_standard_deviation_of_stacked_exposures_is_that_of_lenstronomy():
    flux = torch.tensor([[[0.0, 3.0], [250.0, 0.2]]], dtype=torch.float64)
    sigma = noise_sigma(stacked(), flux, torch.tensor([40.0], dtype=torch.float64))
    assert_allclose(sigma[0], np.sqrt(variance_by_lenstronomy(flux[0].numpy())), rtol=1e-6)


@pytest.fixture(params=[{"cpu"}, set()], ids=["one by one", "all at once"])
def both_ways(request, monkeypatch):
    """Draw noise as on a CPU, and as on other devices."""
    monkeypatch.setattr(noise, "ONE_BY_ONE", request.param)


@pytest.mark.usefixtures("both_ways")
def test_noise_of_stacked_exposures_has_the_variance_of_lenstronomys():
    flux = torch.tensor([0.0, 0.4, 60.0]).repeat(400, 100, 1).float()
    noisy = add_noise(stacked(), 5, flux, times=torch.full((400,), 40.0), ids=np.arange(400)).double().numpy()
    drawn = noisy.reshape(-1, 3)
    expected = variance_by_lenstronomy(np.array([0.0, 0.4, 60.0]))
    assert_allclose(drawn.mean(0), [0.0, 0.4, 60.0], rtol=0, atol=5 * np.sqrt(expected / len(drawn)).max())
    assert_allclose(drawn.var(0), expected, rtol=5 * np.sqrt(2 / len(drawn)))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("name", ["model-1", "model-3-noisy"])
def test_noise_of_an_image_follows_from_preset_seed_and_number_alone(name):
    preset = load_preset(name)
    renamed = load_preset(resolve_preset(name) | {"name": "renamed"})
    flux = torch.full((1, 30, 40), 3.0).repeat(3, 1, 1) * torch.tensor([1.0, 4.0, 1.0])[:, None, None]

    def draw(preset, seed, ids, chosen=slice(None)):
        return add_noise(preset, seed, flux[chosen], times=torch.full((3,), 2000.0)[chosen], ids=np.array(ids))

    images = draw(preset, 6, [10, 11, 12])
    assert_allclose(images[1:], draw(preset, 6, [11, 12], slice(1, None)), rtol=0)
    others = [images[0], images[2], *(draw(*key)[0] for key in ((preset, 7, [10, 11, 12]), (renamed, 6, [10, 11, 12])))]
    correlations = np.corrcoef(torch.stack(others).flatten(1).double())
    assert_allclose(correlations - np.eye(4), 0, atol=5 / np.sqrt(1200))


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize(
    ("seeds", "numbers"), [((5, 5 + 2**32), (0, 0)), ((5, 5), (0, 2**32)), ((5, 6), (15250, 6084))]
)
def test_seeds_and_numbers_count_beyond_32_bits(seeds, numbers):
    """The last pair had one noise when a generator kept 32 bits of its seed."""
    preset, flux, times = load_preset("model-3-noisy"), torch.full((1, 20, 20), 0.1), torch.tensor([100.0])
    a, b = (
        add_noise(preset, seed, flux, times=times, ids=np.array([number]))
        for seed, number in zip(seeds, numbers, strict=True)
    )
    assert (a != b).float().mean() > 0.9


@pytest.mark.usefixtures("both_ways")
def test_noise_differs_from_seed_to_seed_on_the_same_lens():
    """And from image to image, when all else in the row is the same."""
    rows = Simulator("model-3-noisy", 4).catalog(1)
    twins = rows[[0, 0]].with_columns(id=np.array([0, 9]))
    first, second = (Simulator("model-3-noisy", seed).render(twins)[:, 0] for seed in (4, 5))
    sigma = Simulator("model-3-noisy", 4).noise_sigma(twins, first)
    for difference in (first[0] - first[1], first[0] - second[0], second[0] - second[1]):
        # The difference of two independent draws has twice their variance.
        assert float((difference / sigma[0]).square().mean()) == pytest.approx(2, abs=10 / 64)


def test_the_noise_of_a_doubled_model_is_twice_that_of_its_flux():
    flux = torch.tensor([[[0.0, 0.5, 7.0], [2.5, 0.1, 30.0]]], dtype=torch.float64)
    expected = 2 * np.sqrt(variance_by_lenstronomy(flux[0].numpy()))
    sigma = noise_sigma(replace(stacked(), noise="deeplense-doubled"), 2 * flux, torch.tensor([40.0]).double())
    assert_allclose(sigma[0], expected, rtol=1e-6)


@pytest.mark.usefixtures("both_ways")
def test_correlated_noise_of_an_instrument():
    """Of the level that is said, about the same mean, and from pixel to pixel not independent."""
    content = resolve_preset("fair-hst") | {"name": "drizzled", "pixels": 16, "conserve_mass": False}
    content["instrument"] = content["instrument"] | {"noise_correlation": 1.8}
    preset = load_preset(content)
    flux = torch.linspace(0, 0.4, 16).expand(3000, 16, 16)
    times = torch.full((3000,), 5400.0)
    images = add_noise(preset, 3, flux, times=times, ids=np.arange(3000))
    expected = noise_sigma(preset, flux[:1], times[:1])[0]
    assert_allclose(images.std(0), expected, rtol=0.08)
    assert ((images.mean(0) - flux[0]) / expected).abs().max() < 5 / np.sqrt(3000)
    off = (images - flux) / expected
    assert abs(float((off[:, 8, 8] * off[:, 8, 9]).mean()) - np.exp(-1 / (4 * (1.8 / 2.35482) ** 2))) < 0.08


def test_correlated_noise_goes_with_physical_noise():
    content = resolve_preset("model-1")
    content["instrument"] = content["instrument"] | {"noise_correlation": 1.8}
    with pytest.raises(PresetError, match="noise_correlation goes with noise: physical"):
        load_preset(content)
