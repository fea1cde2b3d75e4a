"""Isophotes of galaxies whose shape is known, and of what is not a galaxy."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor

from darklens.data.augmentation import transform
from darklens.physics.coordinates import bin_pixels, pixel_coordinates
from darklens.physics.isophotes import Isophotes, fit_isophotes, isophote_images, isophote_radii
from darklens.physics.light import sersic_light
from darklens.physics.psf import convolve_separable, gaussian_psf_taps

PIXELS, FINER = 64, 5


def galaxies(count: int = 12, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """Sérsic galaxies (N, 1, H, H) of a signal-to-noise of some hundred, behind a Gaussian seeing, and their truths."""
    random = np.random.default_rng(seed)
    low_high = {
        "x0": (-1.5, 1.5), "y0": (-1.5, 1.5), "R_sersic": (4, 8), "n_sersic": (1, 4), "e1": (-0.25, 0.25),
        "e2": (-0.25, 0.25),
    }  # fmt: skip
    truth = {key: torch.tensor(random.uniform(*of, count), dtype=torch.float32) for key, of in low_high.items()}
    x, y = pixel_coordinates(PIXELS, 1.0, FINER)
    columns = {key: of[:, None, None] for key, of in truth.items()}
    fine = sersic_light(x, y, amp=torch.full((count, 1, 1), 40.0), **columns)
    images = convolve_separable(bin_pixels(fine, FINER), gaussian_psf_taps(3.0, 4.0))
    return images[:, None], truth


def axis_ratio_components(truth: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(1 - q²) / (1 + q²) along both axes, of lenstronomy's (1 - q) / (1 + q)."""
    size = torch.hypot(truth["e1"], truth["e2"])
    return tuple(truth[name] * 2 / (1 + size**2) for name in ("e1", "e2"))


def test_centre_and_shape_of_noisy_galaxies_are_found():
    images, truth = galaxies(24)
    found = fit_isophotes(images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3)))
    assert (found.x - truth["x0"]).abs().max() < 0.06
    assert (found.y - truth["y0"]).abs().max() < 0.06
    outside = (isophote_radii(PIXELS) > 6) & (isophote_radii(PIXELS) < 9)  # where the seeing has not rounded much
    for mine, true in zip((found.e1, found.e2), axis_ratio_components(truth), strict=True):
        assert (mine[:, outside].mean(1) - true).abs().max() < 0.08


def test_little_is_left_of_a_galaxy():
    images, _ = galaxies(24)
    left = images - isophote_images(fit_isophotes(images), PIXELS)
    x, y = pixel_coordinates(PIXELS, 1.0)
    away = torch.hypot(x, y) > 4
    assert (left.abs() / images)[:, 0, away].median() < 0.025
    assert (left.abs().sum((2, 3)) / images.sum((2, 3))).max() < 0.035


def arc(radius: float, angle: float, length: float, width: float = 1.2) -> Tensor:
    x, y = pixel_coordinates(PIXELS, 1.0)
    off = torch.remainder(torch.atan2(y, x) - angle + math.pi, 2 * math.pi) - math.pi
    return torch.exp(-0.5 * ((torch.hypot(x, y) - radius) / width) ** 2 - 0.5 * (off / (length / 2)) ** 4)


@pytest.mark.parametrize("length", [0.5, 1.5, 2.5])
def test_arcs_are_left(length):
    images, _ = galaxies(12, seed=1)
    added = 30 * arc(10, 0.7, length)
    without = images - isophote_images(fit_isophotes(images), PIXELS)
    left = images + added - isophote_images(fit_isophotes(images + added), PIXELS)
    share = ((left - without)[:, 0] * added).sum((1, 2)) / added.square().sum()
    assert share.min() > 0.7
    assert share.mean() > 0.8


def test_rings_brighter_than_what_is_inside_are_left_and_profiles_never_rise():
    images, _ = galaxies(12, seed=2)
    x, y = pixel_coordinates(PIXELS, 1.0)
    ring = 200 * torch.exp(-0.5 * ((torch.hypot(x, y) - 14) / 1.5) ** 2)
    found = fit_isophotes(images + ring)
    assert (found.profile.diff(dim=-1) <= 0).all()
    left = (images + ring - isophote_images(found, PIXELS))[:, 0]
    assert ((left * ring).sum((1, 2)) / ring.square().sum()).min() > 0.5


def test_images_turned_and_mirrored_have_turned_and_mirrored_models():
    images, _ = galaxies(6, seed=4)
    images = images + 30 * arc(9, 0.4, 1.0)
    straight = isophote_images(fit_isophotes(images), PIXELS)
    for number in range(8):
        turned = isophote_images(fit_isophotes(transform(images, number)), PIXELS)
        assert (transform(straight, number) - turned).abs().max() < 2e-3 * images.max()


def test_an_image_is_fitted_alike_alone_and_among_others():
    images, _ = galaxies(6, seed=5)
    together, alone = fit_isophotes(images), fit_isophotes(images[2:3])
    for one, all_ in zip(alone, together, strict=True):
        torch.testing.assert_close(one[0], all_[2], rtol=1e-4, atol=1e-4)


def test_bands_share_their_shape_and_keep_their_own_profile():
    images, _ = galaxies(4, seed=6)
    bands = torch.cat([images, 0.3 * images, torch.zeros_like(images)], dim=1)
    found = fit_isophotes(bands)
    assert found.profile.shape == (4, 3, len(isophote_radii(PIXELS)))
    torch.testing.assert_close(found.profile[:, 1], 0.3 * found.profile[:, 0], rtol=1e-4, atol=1e-3)
    assert (found.profile[:, 2] == 0).all()


def test_images_of_known_isophotes_by_brute_force():
    radius, e1, e2 = isophote_radii(33), 0.3, -0.2
    profile = 100 * torch.exp(-radius / 5)
    shape = [torch.full((1, len(radius)), of) for of in (e1, e2)]
    made = isophote_images(Isophotes(torch.tensor([0.7]), torch.tensor([-1.2]), *shape, profile[None, None]), 33)[0, 0]
    for row in range(33):
        for column in range(33):
            dx, dy = column - 16 - 0.7, row - 16 + 1.2
            inverse = np.linalg.inv([[1 + e1, e2], [e2, 1 - e1]]) * math.sqrt(1 - e1**2 - e2**2)
            at = math.sqrt(np.array([dx, dy]) @ inverse @ np.array([dx, dy]))
            if at < radius[-1] - 0.25:
                expected = np.sinh(np.interp(at, radius, np.arcsinh(profile)))
                assert made[row, column] == pytest.approx(expected, rel=1e-3)


def test_the_profile_is_about_the_median_along_each_ellipse_by_brute_force():
    images, _ = galaxies(2, seed=7)
    images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    found, radius = fit_isophotes(images), isophote_radii(PIXELS).numpy()
    angles, lowest = np.arange(32) * np.pi / 16, np.inf
    for number, r in enumerate(radius):
        e1, e2 = found.e1[0, number].item(), found.e2[0, number].item()
        values, vectors = np.linalg.eigh(np.array([[1 + e1, e2], [e2, 1 - e1]]) / math.sqrt(1 - e1**2 - e2**2))
        root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
        x, y = root @ (r * np.array([np.cos(angles), np.sin(angles)]))
        at = np.clip([y + found.y[0].item() + 31.5, x + found.x[0].item() + 31.5], 0, PIXELS - 1)
        along = np.sort(map_coordinates(images[0, 0].numpy(), at, order=1))
        lowest = min(lowest, along[12:17].mean())
        assert found.profile[0, 0, number].item() == pytest.approx(lowest, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize("value", [0.0, 7.0, -3.0])
def test_flat_images_are_their_own_model(value):
    images = torch.full((2, 1, 31, 31), value)
    torch.testing.assert_close(isophote_images(fit_isophotes(images), 31), images, rtol=1e-5, atol=1e-5)


def test_wild_images_have_finite_models():
    images = torch.randn(8, 2, 40, 40, generator=torch.Generator().manual_seed(0)) * 1e4
    images[0, 0, 20, 20], images[1] = 1e8, images[1] * 1e-8
    assert isophote_images(fit_isophotes(images), 40).isfinite().all()


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 30, 31\); expected \(N, C, H, H\)"):
        fit_isophotes(torch.zeros(2, 1, 30, 31))
