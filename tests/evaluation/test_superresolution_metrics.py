"""Metrics of predicted images against scikit-image, torchmetrics and closed forms."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from darklens.evaluation import superresolution as sr
from darklens.evaluation.bootstrap import intervals
from darklens.physics.degrading import Response, degrade

RNG = np.random.default_rng(0)
TRUTH = RNG.gamma(2, 1, (5, 1, 40, 40)).cumsum(2).cumsum(3) / 200
NOISY = TRUTH + RNG.normal(0, 0.3, TRUTH.shape)
RANGE = 9.0


def values(predicted, truth=TRUTH, **options):
    chosen = {"data_range": RANGE, "factor": 2} | options
    metrics = sr.image_metrics(predicted, truth, **chosen)
    return {metric.key: float(metric.statistic(np.ones((1, len(truth))))[0]) for metric in metrics}


def test_mse_psnr_and_ssim_are_those_of_scikit_image():
    found = values(NOISY)
    pairs = list(zip(NOISY[:, 0], TRUTH[:, 0], strict=True))
    assert_allclose(found["mse"], np.mean([(a - b) ** 2 for a, b in pairs]), rtol=1e-12)
    psnr = np.mean([peak_signal_noise_ratio(b, a, data_range=RANGE) for a, b in pairs])
    assert_allclose(found["psnr"], psnr, rtol=1e-9)
    options = {"data_range": RANGE, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    ssim = np.mean([structural_similarity(b, a, **options) for a, b in pairs])
    assert_allclose(found["ssim"], ssim, atol=1e-6)


def test_multiscale_ssim_is_that_of_torchmetrics_with_the_scales_that_fit():
    assert [sr.scales(side) for side in (16, 32, 64, 128, 176)] == [1, 2, 3, 4, 5]
    a, b = (torch.from_numpy(np.pad(each, ((0, 0), (0, 0), (68, 68), (68, 68)))) for each in (NOISY, TRUTH))
    expected = MultiScaleStructuralSimilarityIndexMeasure(data_range=RANGE, normalize="relu")(a, b)
    assert_allclose(sr.multiscale_ssim(a, b, RANGE).mean(), expected, atol=1e-6)


def test_perfect_images_have_perfect_values():
    found = values(TRUTH)
    assert found.pop("psnr") == 200
    for key in ("ssim", "ms_ssim", "power_coarse", "power_fine", "power_new"):
        assert found.pop(key) == pytest.approx(1)
    assert all(abs(value) < 1e-12 for value in found.values()), found


def test_flux_that_is_lost_everywhere_is_a_bias_without_scatter():
    found = values(0.97 * TRUTH)
    assert found["flux_bias"] == pytest.approx(-0.03)
    assert found["flux_scatter"] == pytest.approx(0, abs=1e-7)
    assert found["peak_flux_bias"] == pytest.approx(-0.03)
    assert found["power_new"] == pytest.approx(0.97**2)
    unequal = TRUTH * np.array([0.9, 1.1, 1.0, 0.8, 1.2])[:, None, None, None]
    assert values(unequal)["flux_scatter"] == pytest.approx(np.std([0.9, 1.1, 1, 0.8, 1.2]))


def gaussian(x0, y0, side=40, width=3.0):
    y, x = np.mgrid[:side, :side]
    return np.exp(-((x - x0) ** 2 + (y - y0) ** 2) / (2 * width**2))[None, None]


def test_offset_of_the_peak_is_in_pixels_of_the_images():
    moved = sr.peak_offset(torch.from_numpy(gaussian(20.9, 18.2)), torch.from_numpy(gaussian(20.3, 19.0)), 2)
    assert float(moved) == pytest.approx(0.5, abs=0.02)  # 1 fine pixel, of which 2 make one
    corner = sr.peak_offset(torch.from_numpy(gaussian(39, 0)), torch.from_numpy(gaussian(39, 0)), 2)
    assert float(corner) == 0


def test_power_is_all_of_the_variance_and_blurring_loses_the_fine_scales():
    image = torch.from_numpy(RNG.normal(size=(2, 1, 31, 30)))
    window = torch.hann_window(31, dtype=torch.float64)[:, None] * torch.hann_window(30, dtype=torch.float64)
    whole = (image * window).square().sum((1, 2, 3)) * 31 * 30
    mean = (image * window).sum((1, 2, 3)).square()
    assert_allclose(sr.power_by_scale(image, 2).sum(1) + mean, whole, rtol=1e-10)
    truth = RNG.normal(size=(5, 1, 40, 40))
    found = values(torch.nn.functional.avg_pool2d(torch.from_numpy(truth), 3, 1, 1).numpy(), truth)
    assert found["power_new"] < found["power_fine"] < found["power_coarse"] < 1.1


def test_chi_square_of_the_truth_is_1_and_counts_what_degrading_shows():
    weights = torch.rand(1, 10, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    response = Response(weights, torch.tensor([0.04], dtype=torch.float64), torch.tensor([0.01], dtype=torch.float64))
    truth = np.tile(TRUTH, (8, 1, 1, 1))
    light = degrade(torch.from_numpy(truth), weights, 2).numpy()
    images = np.zeros((40, 1, 20, 20))
    images[..., 2:-2, 2:-2] = light + RNG.normal(size=light.shape) * np.sqrt(0.04 + 0.01 * light)

    def chi2(predicted):
        metric = sr.degraded_metric(predicted, truth, images, response, 2)
        return float(metric.statistic(np.ones((1, 40)))[0])

    assert chi2(truth) == pytest.approx(1, abs=0.04)
    added = 0.01 * float(weights.sum())
    assert chi2(truth + 0.01) == pytest.approx(1 + added**2 * np.mean(1 / (0.04 + 0.01 * light)), rel=0.05)


def test_coverage_of_samples_that_are_drawn_as_the_truth_is():
    drawn = RNG.normal(size=(19, 30, 1, 20, 20))
    truth = RNG.normal(size=(30, 1, 20, 20))
    metrics = sr.coverage_metrics(drawn.min(0), drawn.max(0), drawn.std(0, ddof=1), truth, 18 / 20)
    found = {each.key: float(each.statistic(np.ones((1, 30)))[0]) for each in metrics}
    assert found["coverage"] == pytest.approx(metrics[0].perfect, abs=0.01)
    assert found["spread"] == pytest.approx(1, abs=0.02)


def test_intervals_hold_the_value():
    found = intervals(sr.image_metrics(NOISY, TRUTH, data_range=RANGE, factor=2), 5)
    assert all(figure.low <= figure.value <= figure.high for key, figure in found.items() if "scatter" not in key)
