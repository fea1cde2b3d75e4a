"""Integrals over sub-pixels, against closed forms and against very many rays."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import erf

from darklens.physics import bin_pixels, convolve_separable, gaussian_psf_taps
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation.choosing import Choice
from darklens.simulation.loops import LANES
from darklens.simulation.places import Places, bordered, lagrange, rule_of
from darklens.simulation.quadrature import LEVELS, _without, resolve, roughness

N = 24
CENTRES = torch.arange(N, dtype=torch.float64) - (N - 1) / 2


def sampled(light):
    """Samples of light at the centres of sub-pixels, and what gives it elsewhere; two images, the second one mirrored."""
    sides = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def rays(places):
        x, y = places.positions(float(CENTRES[0]), 1.0)
        return light(sides[:, None, None, None] * x, y)

    return light(sides[:, None, None] * CENTRES, CENTRES[:, None].expand(2, -1, -1)), rays


def brute_force(light, factor=64):
    """Mean light of sub-pixels from ``factor`` × ``factor`` rays in each."""
    fine = (torch.arange(N * factor, dtype=torch.float64) + 0.5) / factor - N / 2
    return bin_pixels(light(fine, fine[:, None]), factor)


def seen(values, sigma):
    """Through a Gaussian PSF, in pixels of 2 × 2 sub-pixels."""
    return bin_pixels(convolve_separable(values, gaussian_psf_taps(sigma / SIGMA_PER_FWHM, 5)), 2)


def truly_seen(light, sigma, factor=48):
    """The same by very many rays, each convolved with the PSF where it is."""
    fine = (torch.arange(N * factor, dtype=torch.float64) + 0.5) / factor - N / 2
    edges = torch.arange(N // 2 + 1, dtype=torch.float64) * 2 - N / 2
    steps = torch.special.erf((edges[:, None] - fine) / (sigma * 2**0.5)) / 2
    response = (steps[1:] - steps[:-1]) / (2 * factor)
    return response @ light(fine, fine[:, None]) @ response.T


def cusp(x, y):
    return 5 * torch.exp(-4 * torch.hypot(x - 1.3, 0.7 * (y + 2.2)).sqrt())


def step(x, y):
    return torch.where(x + 0.3 * y > 0.77, 1.0, 0.2) * torch.exp(-(x**2 + y**2) / 40)


def hill(x, y):
    return torch.exp(-((x - 0.4) ** 2 + (y + 0.8) ** 2) / 18)


@pytest.fixture(params=[False, True], ids=["by PyTorch", "by loops"])
def compiled(request):
    """Both ways of all that is done with the places of sub-pixels."""
    return request.param


@pytest.mark.parametrize(("light", "before", "after"), [(cusp, 0.1, 3e-3), (step, 0.3, 1e-2), (hill, 9e-3, 1e-5)])
def test_means_of_sub_pixels_are_those_of_very_many_rays(light, before, after, compiled):
    samples, rays = sampled(light)
    truth = brute_force(light)
    assert (samples[0] - truth).abs().max() > before * truth.max()
    means = resolve(samples, rays, psf_sigma=None, compiled=compiled)
    assert (means[0] - truth).abs().max() < after * truth.max()
    assert_allclose(means[1].flip(1), means[0], atol=1e-9)


@pytest.mark.parametrize("sigma", [1.36, 1.6, 4.0])
@pytest.mark.parametrize(("light", "after"), [(cusp, 1e-3), (step, 1e-3), (hill, 3e-5)])
def test_light_is_convolved_where_it_is(light, after, sigma, compiled):
    """Away from the edge, beyond which a telescope sees light that the sub-pixels do not hold."""
    samples, rays = sampled(light)
    inner = slice(4, -4) if sigma < 2 else slice(5, -5)
    truth = truly_seen(light, sigma)[inner, inner]
    found = seen(resolve(samples, rays, psf_sigma=sigma, compiled=compiled), sigma)[0, inner, inner]
    assert (found - truth).abs().max() < after * truth.max()
    if light is cusp:
        means = seen(brute_force(light)[None], sigma)[0, inner, inner]
        assert (found - truth).abs().max() < (means - truth).abs().max() / 5, "better than exact means of sub-pixels"


def test_more_rays_go_where_the_light_is_rough():
    asked = []
    samples, rays = sampled(cusp)

    def counted(places):
        light = rays(places)
        asked.append((places.cells, light.shape[-1]))
        return light

    resolve(samples, counted, psf_sigma=1.6, levels=(50, 10, 8, 4))
    assert [(cells.shape[1], along) for cells, along in asked] == [(50, 3), (10, 6), (8, 6), (4, 6)]
    deepest = asked[-1][0][0]
    column, row = deepest % N, deepest // N
    assert (CENTRES[column] - 1.3).abs().max() < 1
    assert (CENTRES[row] + 2.2).abs().max() < 1
    assert LEVELS[0] > N * N, "where there are fewer sub-pixels than rays for them, all are resolved"


def test_polynomials_through_seven_samples(compiled):
    """A field that is a polynomial along both axes, whole and in quarters of quarters, two images with other sub-pixels."""
    x, y = torch.arange(N, dtype=torch.float64) / N, torch.arange(N, dtype=torch.float64)[:, None] / N
    fields = torch.stack([x**5 * y**2 - 3 * x, y**6 + x * y**3])
    cells = torch.tensor([[3 * N + 5, 9 * N + 20], [10 * N + 7, 4 * N + 3]])
    for depth in (0, 2):
        column, row = (cells % N) * 2**depth + min(depth, 1), (cells // N) * 2**depth + depth
        rule = rule_of(depth, 2, 1.6, torch.float64, cells.device)
        places = Places(cells, N, rule, column=column, row=row, compiled=compiled)
        at_x, at_y = (each / N for each in places.positions(0.0, 1.0))
        wanted = torch.stack([(at_x**5 * at_y**2 - 3 * at_x)[0], (at_y**6 + at_x * at_y**3)[1]])
        assert_allclose(places.interpolate(bordered(fields)), wanted, atol=1e-12)
    nodes = np.arange(-3, 4)
    at = torch.tensor([-0.4, 0.0, 0.3], dtype=torch.float64)
    found = lagrange(at) @ torch.from_numpy(nodes**6 - 2.0 * nodes**3 + 1.5)
    assert_allclose(found, at**6 - 2 * at**3 + 1.5, atol=1e-12)


@pytest.mark.parametrize("psf_sigma", [None, 1.6])
@pytest.mark.parametrize(("depth", "pieces"), [(0, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-13), (torch.float32, 3e-5)])
def test_loops_do_what_pytorch_does(psf_sigma, depth, pieces, dtype, rtol):
    """Sub-pixels of three images in any order, some of them twice and some at the edges, and parts in any of them."""
    rng = np.random.default_rng(depth)
    n, images, count = 9, 3, 40
    cells = torch.from_numpy(rng.integers(0, n * n, (images, count)))
    cells[0, :4] = torch.tensor([0, n - 1, n * (n - 1), n * n - 1])
    column, row = (
        each * 2**depth + torch.from_numpy(rng.integers(0, 2**depth, cells.shape)) for each in (cells % n, cells // n)
    )
    rule = rule_of(depth, pieces, psf_sigma, dtype, cells.device)
    field = bordered(torch.from_numpy(rng.normal(size=(images, n, n))).to(dtype))
    light = torch.from_numpy(rng.normal(size=(images, count, 3 * pieces, 3 * pieces))).to(dtype)
    field[2, 40], light[0, 30, 1, 1] = torch.nan, torch.nan  # which must not get lost
    found = []
    for compiled in (False, True):
        places = Places(cells, n, rule, column=column, row=row, compiled=compiled)
        total = torch.ones(images, (n if psf_sigma is None else n + 6) ** 2 + LANES, dtype=dtype)
        places.deposit(light, total)
        places.deposit(light.flip(-1), total)
        found.append([*places.positions(-1.3, 0.2), places.interpolate(field), total])
    for plain, looped in zip(*found, strict=True):
        assert_allclose(looped, plain, rtol=rtol, atol=rtol)
    assert found[1][2].isnan().any()
    assert found[1][3].isnan().any()


@pytest.mark.parametrize("pieces", [1, 2])
def test_light_of_parts_that_are_looked_into_again_is_taken_away(pieces):
    rng = np.random.default_rng(pieces)
    values = torch.from_numpy(rng.normal(size=(4, 5, 3 * pieces, 3 * pieces)))
    parts = values.view(4, 5, pieces, 3, pieces, 3).transpose(3, 4).reshape(4, 5 * pieces**2, 3, 3).clone()
    index = torch.tensor([[7, 0, 3], [19, 3, 3]])
    chosen = Choice(index, torch.tensor([0, 2]), torch.tensor([[1.0, 1, 1], [1, 0, 0]], dtype=torch.float64))
    wanted = parts.flatten(0, 1).clone()
    wanted[[0, 3, 7, 19]] = 0
    for compiled in (False, True):
        left = _without(values.clone(), parts, chosen, compiled=compiled)
        found = left.view(4, 5, pieces, 3, pieces, 3).transpose(3, 4).reshape(-1, 3, 3)
        assert_allclose(found, wanted, atol=1e-15)


def test_roughness_is_that_of_fourth_differences(compiled):
    x = torch.arange(N, dtype=torch.float64)
    field = (x**3)[None, None, :] + 2 * (x**3)[None, :, None]
    assert_allclose(roughness(field, compiled=compiled)[0, 2:-2, 2:-2], 0, atol=1e-8)
    field[0, 10, 12] += 1
    assert_allclose(roughness(field, compiled=compiled)[0, 10, 10:15], [1, 4, 12, 4, 1], atol=1e-8)
    at_edges = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 5, 5)))
    assert_allclose(roughness(at_edges, compiled=compiled), roughness(at_edges), rtol=1e-13)


def test_gaussian_light_through_a_gaussian_psf_in_closed_form(compiled):
    samples, rays = sampled(lambda x, y: torch.exp(-(x**2 + y**2) / (2 * 1.2**2)))
    width = np.hypot(1.2, 1.6) * np.sqrt(2)
    edges = np.arange(N // 2 + 1) * 2 - N / 2
    along = np.diff(erf(edges / width)) / 2 * 1.2 * np.sqrt(2 * np.pi) / 2
    found = seen(resolve(samples, rays, psf_sigma=1.6, compiled=compiled), 1.6)
    assert_allclose(found[0], np.outer(along, along), atol=2e-5)
