"""The task superresolve: units, pairs that are refused, losses against brute force, and what is learned of pairs."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch
from numpy.testing import assert_allclose

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.preprocessing import Preprocessing
from darklens.errors import DataError, RecipeError
from darklens.models.registry import build_network
from darklens.physics.coordinates import bin_pixels
from darklens.physics.degrading import bicubic
from darklens.tasks.registry import make_task, task_content
from darklens.tasks.superresolution_module import relativistic_loss
from darklens.tasks.superresolve import Superresolve


def scenes(count=40, side=24, seed=0):
    """Blurred random light (N, 1, side, side), as of arcs."""
    rng = np.random.default_rng(seed)
    light = torch.from_numpy(rng.gamma(0.1, 10, (count, 1, side, side)).astype(np.float32))
    return torch.nn.functional.avg_pool2d(light, 5, 1, 2)


def pairs(count=40, factor=2, ratio=1.0, noise=0.05, seed=0):
    """Pairs whose images hold the flux of factor² fine pixels, times ``ratio``, with noise."""
    fine = scenes(count, 12 * factor, seed)
    images = ratio * factor**2 * bin_pixels(fine, factor)
    images = images + noise * torch.from_numpy(np.random.default_rng(seed + 1).normal(size=images.shape)).float()
    catalog = pl.DataFrame({"id": [f"i{n}" for n in range(count)]})
    return Cutouts(images.numpy(), catalog, DatasetInfo("here"), fine.numpy())


def fitted(cutouts, **options):
    return Superresolve(**options).for_data(cutouts).fit_pairs(cutouts.images, cutouts.targets)


def test_factor_range_and_scale_are_learned():
    cutouts = pairs(factor=3)
    task = fitted(cutouts)
    assert (task.factor, task.channels) == (3, 1)
    assert task.data_range == pytest.approx(cutouts.targets.max() - cutouts.targets.min())
    assert task.flux_ratio == 1 / 9
    prepared = Preprocessing(stretch="none").fit(torch.from_numpy(cutouts.images))
    assert task.center == pytest.approx(prepared.center / 9, rel=1e-5)
    assert task.scale == pytest.approx(prepared.scale / 9, rel=1e-5)
    assert task.sky[0] == pytest.approx(0.05**2, rel=0.5)
    again = make_task(task_content(task, "superresolve"), "here", learned=True)
    assert again == task


@pytest.mark.parametrize(("ratio", "flux_ratio"), [(1.0, 0.25), (0.25, 1.0)])
def test_constant_surface_brightness_keeps_its_flux(ratio, flux_ratio):
    """Of fluxes per pixel, four fine pixels share what one had; of surface brightnesses, each has the same."""
    task = fitted(pairs(ratio=ratio))
    assert task.flux_ratio == flux_ratio
    flat = np.full((1, 1, 12, 12), 7.0, np.float32)
    for _, found in task.with_images(flat).baselines(np.zeros((1, 1, 24, 24))):
        assert_allclose(found, 7 * flux_ratio, rtol=1e-5)
    network = build_network("edsr", 1, 1, {"width": 8, "blocks": 1})
    prepared = Preprocessing(stretch="none").fit(torch.from_numpy(pairs(ratio=ratio).images))
    with torch.no_grad():
        found = task.predictions(network(prepared(torch.from_numpy(flat))))
    assert_allclose(found, 7 * flux_ratio, rtol=1e-4)


def test_span_is_that_of_targets_that_are_not_for_the_test():
    cutouts = pairs()
    cutouts.targets[3, 0, 5, 5] = 1000
    split = ["test" if n == 3 else "train" for n in range(40)]
    task = Superresolve().for_data(
        dataclasses.replace(cutouts, catalog=cutouts.catalog.with_columns(split=pl.Series(split)))
    )
    assert task.data_range < 999


def test_pairs_of_other_scenes_are_named():
    cutouts = pairs()
    targets = cutouts.targets.copy()
    targets[7] = scenes(1, 24, seed=99).numpy()[0]
    with pytest.raises(
        DataError, match=r"here: 1 of 40 pairs do not show the same scene, i7 among them: .* less than 0.3"
    ):
        Superresolve(least_correlation=0.3).for_data(dataclasses.replace(cutouts, targets=targets))
    shifted = dataclasses.replace(cutouts, targets=np.roll(cutouts.targets, 1, axis=0))
    with pytest.raises(DataError, match="targets seem to be in another order"):
        Superresolve(least_correlation=-1.0).for_data(shifted)
    targets = cutouts.targets.copy()
    targets[2, 0, 1, 1] = np.nan
    with pytest.raises(DataError, match="the target of image i2 has pixels that are no numbers"):
        Superresolve().for_data(dataclasses.replace(cutouts, targets=targets))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, r"here: super-resolution needs an image to predict for each .* --pairs 2"),
        (np.zeros((40, 1, 30, 30)), r"targets of 30×30 pixels are no whole multiple, from 2 to 16, of images of 12×12"),
        (np.zeros((40, 1, 12, 12)), "no whole multiple"),
        (np.zeros((40, 1, 24, 36)), "no whole multiple"),
        (np.zeros((40, 2, 24, 24)), "images have 1 bands and targets 2"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, message):
    with pytest.raises(DataError, match=message):
        Superresolve().for_data(dataclasses.replace(pairs(), targets=targets))


def test_test_images_of_another_factor_are_refused():
    with pytest.raises(
        DataError, match="3 times as many pixels a side as images; the model makes images 2 times finer"
    ):
        fitted(pairs()).targets(pairs(factor=3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pixel": -1.0}, "task.pixel is a weight"),
        ({"samples": 2}, "task.samples is 0, or at least 3"),
        ({"samples": 9, "consistency": 1.0}, "leave the others out"),
        ({"adversarial": 1.0, "pixel": 0.0}, "which say what is true"),
    ],
)
def test_options_without_sense_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        Superresolve(**options)


def test_losses_are_those_of_standardised_pixels():
    task = dataclasses.replace(Superresolve(), center=2.0, scale=4.0)
    targets, output = scenes(3), torch.randn(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    gap = (output - (targets - 2) / 4).numpy()
    assert float(task.loss(output, targets, 1)) == pytest.approx(np.abs(gap).mean(), rel=1e-5)
    squared = dataclasses.replace(task, error="mse")
    assert float(squared.loss(output, targets, 1)) == pytest.approx((gap**2).mean(), rel=1e-5)
    with pytest.raises(
        RecipeError, match=r"makes images of 12×12 pixels, and targets have 24×24: say --network.scale 2"
    ):
        task.loss(output[..., ::2, ::2], targets, 1)


def test_relativistic_loss_by_brute_force():
    a, b = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.1, 0.3])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    real = [-np.log(sigmoid(x - 0.2)) for x in (0.5, -1.0, 2.0)]
    fake = [-np.log(1 - sigmoid(x - 0.5)) for x in (0.1, 0.3)]
    assert float(relativistic_loss(a, b)) == pytest.approx((np.mean(real) + np.mean(fake)) / 2, rel=1e-6)


def test_bicubic_is_what_is_to_be_beaten_and_its_equal_is_warned_of():
    cutouts = pairs(noise=0.3)
    task = fitted(cutouts).with_images(cutouts.images)
    name, found = task.trivial(cutouts.targets)
    assert name == "bicubic interpolation"
    assert_allclose(found, bicubic(torch.from_numpy(cutouts.images), 2) / 4, rtol=1e-5)
    assert "cannot be told from bicubic" in task.concerns({}, found + 1e-9, cutouts.targets)[0]
    better = cutouts.targets + 0.1 * (found - cutouts.targets)
    assert task.concerns({}, better, cutouts.targets) == []
    keys = [metric.key for metric in task.metrics(better, cutouts.targets)]
    assert keys[0] == "psnr" == task.ranking
    assert "chi2" in keys
    assert "chi2" not in [metric.key for metric in fitted(cutouts).metrics(better, cutouts.targets)]


def test_samples_are_in_the_unit_of_the_targets():
    task = dataclasses.replace(Superresolve(samples=9), center=2.0, scale=4.0)
    assert task.outputs == 4
    output = torch.tensor([1.0, 0.5, 0.2, 1.8]).reshape(1, 4, 1, 1).expand(1, 4, 24, 24)
    found = task.predictions(output)
    assert found[0, :, 0, 0].tolist() == pytest.approx([6.0, 2.0, 2.8, 9.2])
    truth = np.full((1, 1, 24, 24), 9.0)
    values = {m.key: m.statistic(np.ones((1, 1)))[0] for m in task.metrics(found.numpy(), truth)}
    assert values["coverage"] == 1
    assert values["spread"] == 2
