"""Cutouts of another telescope made to fit a model: which pixels are kept, and how bright they are."""

import numpy as np
import pytest
import torch

from darklens.data.dataset import DatasetInfo
from darklens.inference.adapt import adaptation
from darklens.inference.config import ModelConfig

MODEL = ModelConfig(
    {"name": "regress", "target": "m"}, {}, {}, 1, 6, outputs=["m"], pixel_scale=0.1, unit="e-/s",
    data={"typical_peak": 40.0},
)  # fmt: skip


def test_the_centre_is_kept_and_nothing_else():
    images = np.arange(2 * 10 * 9, dtype=np.float32).reshape(2, 1, 10, 9)
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), images.shape)
    np.testing.assert_array_equal(adapt(images), images[:, :, 2:8, 1:7])


def test_small_cutouts_stand_in_the_middle_of_a_border_of_their_own_level():
    image = np.full((1, 1, 4, 4), 7.0, np.float32)
    image[0, 0, 1, 2] = 50
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), image.shape)
    expected = np.full((6, 6), 7.0)
    expected[2, 3] = 50
    np.testing.assert_array_equal(adapt(image)[0, 0], expected)


def test_brightness_of_another_unit_is_scaled_to_the_typical_peak():
    rng = np.random.default_rng(0)
    images = (rng.random((3, 1, 6, 6)) * np.array([1.0, 5.0, 0.01]).reshape(3, 1, 1, 1)).astype(np.float32)
    adapt = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="nJy"), images.shape)
    out = adapt(images)
    peaks = np.quantile(images.reshape(3, -1), 0.995, axis=1)
    np.testing.assert_allclose(out, images * (40.0 / peaks).reshape(3, 1, 1, 1), rtol=1e-5)
    assert any("its own brightness is lost" in note for note in adapt.notes)
    same = adaptation(MODEL, DatasetInfo("x", pixel_scale=0.1, unit="e-/s"), images.shape)
    np.testing.assert_array_equal(same(images), images)


def test_resampling_keeps_flux_and_place():
    """A blob off the centre stays where it is on the sky when pixels become half as large."""
    y, x = np.mgrid[:12, :12] - 5.5
    images = np.exp(-((x - 2.1) ** 2 + (y + 1.2) ** 2) / 4)[None, None].astype(np.float32)
    model = ModelConfig(MODEL.task, {}, {}, 1, 24, outputs=["m"], pixel_scale=0.1, unit="e-/s")
    adapt = adaptation(model, DatasetInfo("x", pixel_scale=0.2, unit="e-/s"), images.shape)
    out = adapt(images)[0, 0]
    assert out.sum() == pytest.approx(float(images.sum()), rel=1e-3)
    rows, columns = torch.meshgrid(torch.arange(24.0) - 11.5, torch.arange(24.0) - 11.5, indexing="ij")
    centre = [float((out * axis).sum() / out.sum()) / 2 for axis in (columns, rows)]
    assert centre == pytest.approx([2.1, -1.2], abs=0.02)
    assert adapt.zoom == pytest.approx(2)
