import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from darklens.plots.pictures import explanation, mosaic, preset_preview, stretch


def colour_bars(figure):
    return [a for a in figure.axes if any(t.get_text().endswith("σ") for t in a.get_yticklabels())]


def test_every_class_of_a_preview_has_its_own_symmetric_scale_beside_it():
    """A class a hundred times weaker is as visible as the strong one, and one without substructure has no scale."""
    rng = np.random.default_rng(0)
    images = [rng.random((4, 16, 16)) for _ in range(3)]
    strong = rng.normal(0, 30, (4, 16, 16))
    figure = preset_preview(images, [None, strong, strong / 100], ["no_sub", "strong", "weak"], 0.1)
    drawn = [a.images[0] for a in figure.axes if a.images and a.images[0].get_cmap().name == "RdBu_r"]
    limits = [image.get_clim() for image in drawn]
    assert len(limits) == 8
    assert all(low == -high for low, high in limits)
    assert len(set(limits[:4])) == len(set(limits[4:])) == 1, "one scale for a row"
    for (_, high), residual in ((limits[0], strong), (limits[4], strong / 100)):
        np.testing.assert_allclose(high, np.quantile(np.abs(residual), 0.998), rtol=0.05)
    ticks = [[t.get_text() for t in bar.get_yticklabels()] for bar in colour_bars(figure)]
    assert ticks == [[f"−{high:g} σ", "0", f"+{high:g} σ"] for high in (limits[0][1], limits[4][1])]
    texts = [t.get_text().replace("\n", " ") for a in figure.axes for t in a.texts]
    assert texts.count("minus the same lens without substructure") == 2
    plt.close(figure)


NAMES = [f"HST_J{i:04d}+0123456789_F160W_drz_cutout" for i in range(3)] + [
    f"tile_cutout_number_0{i:08d}" for i in range(3)
]


def test_long_names_in_a_mosaic_stay_apart_and_differ():
    figure = mosaic(np.random.default_rng(0).random((6, 16, 16)), NAMES)
    figure.canvas.draw()
    titles = [axis.title for axis in figure.axes]
    assert len({title.get_text() for title in titles}) == 6
    assert titles[0].get_text() == "HST_J0000…z_cutout"
    boxes = [title.get_window_extent() for title in titles]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    plt.close(figure)


@pytest.mark.parametrize("number", [1, 3, 4])
def test_explanation_says_what_its_colours_mean_and_captions_stay_apart(number):
    rng = np.random.default_rng(0)
    captions = [f"{name}_{name}: no_sub (0.98), outlier 78.6" for name in NAMES[:number]]
    figure = explanation(rng.random((number, 16, 16)), rng.normal(0, 1, (number, 16, 16)), captions)
    figure.canvas.draw()
    assert [text.get_text() for text in figure.texts] == ["red pixels speak for the answer, blue ones against it"]
    titles = [axis.get_title(loc="left") for axis in figure.axes[: 2 * number : 2]]
    assert all(re.fullmatch(r".{10,}: no_sub \(0\.98\), outlier 78\.6", title) for title in titles)
    boxes = [axis._left_title.get_window_extent() for axis in figure.axes[: 2 * min(number, 3) : 2]]
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    key = figure.texts[0].get_window_extent()
    assert not any(key.overlaps(axis.get_window_extent()) for axis in figure.axes)
    plt.close(figure)


def test_scale_bar_is_one_arcsecond_long():
    figure = mosaic(np.random.default_rng(0).random((2, 40, 40)), ["a", "b"], pixel_scale=0.05)
    bars = [axis.lines for axis in figure.axes]
    assert [len(each) for each in bars] == [1, 0], "beside the first image only"
    x, y = bars[0][0].get_data()
    assert x[1] - x[0] == pytest.approx(20)
    assert y[0] == y[1]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1″"]
    plt.close(figure)


def test_images_are_drawn_north_up_with_their_own_stretch():
    images = np.zeros((2, 8, 8))
    images[0, 6, 1], images[1, 0, 0] = 5.0, 500.0
    figure = mosaic(images, ["a", "b"])
    for axis, image in zip(figure.axes, images, strict=True):
        assert axis.images[0].origin == "lower"
        drawn = axis.images[0].get_array()
        assert np.unravel_index(drawn.argmax(), drawn.shape) == np.unravel_index(image.argmax(), image.shape)
    assert figure.axes[0].images[0].get_array().max() == pytest.approx(figure.axes[1].images[0].get_array().max())
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    plt.close(figure)


def test_stretch_is_monotonic_and_from_zero_to_one():
    image = np.linspace(-3, 400, 900).reshape(30, 30)
    found = stretch(image).ravel()
    assert (np.diff(found) >= 0).all()
    assert found[0] == 0
    assert 0.95 < found[-1] < 1.1
    assert stretch(np.full((4, 4), 7.0)).max() == 0, "a constant image is dark, not nan"
