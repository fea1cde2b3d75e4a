"""Fits of galaxies against their truths, and images of them against lenstronomy."""

import numpy as np
import pytest
import torch
from lenstronomy.LightModel.light_model import LightModel

from darklens.physics.lightfit import asymmetric, fit_fluxes, fit_galaxies, galaxy_image
from darklens.physics.psf import psf_kernel

POINT = torch.ones(1, 1, 1, dtype=torch.float64)


def shapes(count, seed=1):
    rng = np.random.default_rng(seed)
    columns = [
        rng.normal(0, 0.5, count), rng.normal(0, 0.5, count), np.log(rng.uniform(2, 5, count)),
        np.log(rng.uniform(1, 5, count)), rng.normal(0, 0.12, count), rng.normal(0, 0.12, count),
    ]  # fmt: skip
    return torch.tensor(np.stack(columns, 1))


def seeing(count, fwhm=4.0):
    return psf_kernel(12, torch.full((count,), fwhm, dtype=torch.float64), beta=3.0)


def test_image_is_lenstronomys_on_the_same_samples():
    shape = torch.tensor([[0.6, -1.1, np.log(3.0), np.log(2.0), 0.2, -0.1]], dtype=torch.float64)
    ours = galaxy_image(shape, 20, POINT, finer=3)[0].numpy()
    axis = (np.arange(60) - 29.5) / 3
    x, y = (of.ravel() for of in np.meshgrid(axis, axis))
    model = LightModel(["SERSIC_ELLIPSE"])
    kwargs = {"R_sersic": 3.0, "n_sersic": 2.0, "e1": 0.2, "e2": -0.1, "center_x": 0.6, "center_y": -1.1}
    amp = 1 / model.total_flux([kwargs | {"amp": 1.0}])[0]
    theirs = model.surface_brightness(x, y, [kwargs | {"amp": amp}]).reshape(20, 3, 20, 3).mean((1, 3))
    assert np.abs(ours - theirs).max() < 1e-6 * theirs.max()


def test_samples_are_fine_enough():
    shape = torch.tensor([[0.3, 0.2, np.log(3.0), np.log(4.0), 0.1, 0.05]], dtype=torch.float64)
    very_fine = galaxy_image(shape, 33, seeing(1), finer=32)
    for finer, off in ((2, 0.06), (4, 0.01)):
        image = galaxy_image(shape, 33, seeing(1), finer=finer)
        assert abs(image.sum() / very_fine.sum() - 1) < off
    assert (image - very_fine).abs().max() < 0.02 * very_fine.max()


def test_fits_find_galaxies_within_their_errors():
    truths, noise = shapes(24), torch.Generator().manual_seed(0)
    psf = seeing(24)
    images = 20_000 * galaxy_image(truths, 33, psf)
    images = images + 5 + torch.randn(images.shape, dtype=torch.float64, generator=noise)
    found = fit_galaxies(images, torch.ones_like(images), psf, 4.0)
    off = (found.shape - truths).abs()
    assert off[:, :2].max() < 0.1
    assert off[:, 2].median() < 0.03
    assert off[:, 3].median() < 0.06
    assert off[:, 4:].max() < 0.03
    assert ((found.flux / 20_000 - 1).abs().median()) < 0.02
    assert found.chi2.median() == pytest.approx(1, abs=0.05)
    assert found.background.median() == pytest.approx(5, abs=0.1)
    assert torch.allclose(found.radius, found.shape[:, 2].exp())
    assert torch.allclose(found.sersic_index, found.shape[:, 3].exp())


def test_fluxes_of_another_band_are_linear():
    truths, psf = shapes(3), seeing(3, 5.0)
    unit = galaxy_image(truths, 33, psf)
    fluxes = torch.tensor([10.0, 200.0, -3.0], dtype=torch.float64)
    found = fit_fluxes(fluxes[:, None, None] * unit + 0.25, torch.full_like(unit, 4.0), psf, truths)
    assert torch.allclose(found.flux, fluxes)
    assert torch.allclose(found.background, torch.full((3,), 0.25, dtype=torch.float64))
    assert torch.equal(found.shape, truths)
    noise = torch.randn(400, 33, 33, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) / 2
    many = fit_fluxes(fluxes[0] * unit[:1] + noise, torch.full_like(noise, 4.0), psf[:1], truths[:1].expand(400, -1))
    assert many.flux.std() == pytest.approx(float(found.flux_error[0]), rel=0.1)
    wide = fit_fluxes(unit, torch.ones_like(unit), psf, truths)
    assert torch.allclose(wide.flux_error, 2 * found.flux_error)  # noise of 1 and not of a half


def test_neighbours_are_masked_and_do_not_count():
    truth = torch.tensor([[0.0, 0, np.log(3.0), np.log(2.0), 0.1, 0]], dtype=torch.float64)
    psf, noise = seeing(1), torch.ones(1, 41, 41, dtype=torch.float64)
    alone = 5000 * galaxy_image(truth, 41, psf)
    other = torch.tensor([[11.0, 4.0, np.log(2.0), 0, 0, 0]], dtype=torch.float64)
    both = alone + 4000 * galaxy_image(other, 41, psf)
    masked = asymmetric(both, noise)
    assert masked[0, 24, 31]
    assert not masked[0, 20, 20]
    assert not masked[0, 16, 9], "the side opposite to a neighbour counts"
    assert not asymmetric(alone, noise).any()
    free, held = (fit_galaxies(both, weight, psf, 4.0).flux.item() for weight in (noise, torch.where(masked, 0, noise)))
    assert abs(held - 5000) < 250 < abs(free - 5000)


def test_images_and_weights_must_fit():
    with pytest.raises(ValueError, match=r"expected \(N, H, H\) of both"):
        fit_galaxies(torch.zeros(2, 5, 5), torch.zeros(2, 5, 6), POINT, 1.0)
