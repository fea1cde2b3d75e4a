import itertools
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from looks import lines, number, size, text_look, texts
from PIL import Image
from scipy.ndimage import gaussian_filter

from darklens.plots.pictures import (
    colour_pictures,
    drawn_images,
    explanation,
    mosaic,
    preset_preview,
    save,
    scene_preview,
    stretch,
)


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


def test_colours_of_a_mosaic_are_drawn_as_they_are():
    colours = np.random.default_rng(0).random((2, 9, 7, 3))
    figure = mosaic(colours, ["a", "b"])
    for axis, image in zip(figure.axes, colours, strict=True):
        np.testing.assert_array_equal(axis.images[0].get_array(), image)
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


INK, QUIET, WHITE = "#1d2530", "#8a94a0", "#ffffff"


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    plt.close("all")


def margins(figure):
    """Left, right, bottom, top, and the gaps between columns and rows, as fractions."""
    found = figure.subplotpars
    return [number(value) for value in (found.left, found.right, found.bottom, found.top, found.wspace, found.hspace)]


def grid(figure):
    """Rows and columns."""
    return figure.axes[0].get_gridspec().get_geometry()


def test_stretch_is_linear_about_the_sky_and_logarithmic_above():
    """arcsinh(5 s) / arcsinh(5) of the share s between the quantiles of 2 and 99.7%, cut at 1.2."""
    image = np.linspace(-20, 980, 1001).reshape(7, 143)
    scaled = (image - 0) / (977 - 0)
    expected = np.log(5 * scaled + np.sqrt(25 * scaled**2 + 1)) / np.log(5 + np.sqrt(26))
    bright = image > 0
    np.testing.assert_allclose(stretch(image)[bright], expected[bright], rtol=1e-12)
    assert (stretch(image)[~bright] == 0).all()
    image[0, 0] = 1e9
    assert stretch(image)[0, 0] == pytest.approx(np.arcsinh(6) / np.arcsinh(5))
    dark = np.zeros((30, 30))
    dark[0, 0] = 0.3
    assert stretch(dark)[0, 0] == pytest.approx(np.arcsinh(1.5) / np.arcsinh(5)), "not divided by a range of zero"


def test_look_of_a_mosaic():
    images = np.random.default_rng(0).random((5, 20, 30))
    figure = mosaic(images, list("abcde"), columns=3, pixel_scale=0.1, side=2.0)
    assert (grid(figure), size(figure)) == ((2, 3), [6.0, 4.44])
    assert margins(figure)[:5] == [0.01, 0.99, 0.01, number(1 - 0.22 / 4.44), 0.05]
    assert not any(axis.axison for axis in figure.axes), "nor that without an image"
    first = figure.axes[0]
    assert text_look(first.title) == ("a", 0.5, 1, 7.5, INK, "center", "baseline")
    assert first.title.get_fontweight() == "normal"
    # A bar of ten pixels, 7% of the width away from the corner.
    assert first.lines[0].get_xydata().tolist() == [pytest.approx([2.1, 2.1]), pytest.approx([12.1, 2.1])]
    assert lines(first) == [("", WHITE, "-", 1.5, "None", 0)]
    assert first.lines[0].get_solid_capstyle() == "butt"
    assert texts(first) == [("1″", 7.1, 2.835, 7, WHITE, "center", "bottom")]
    for axis, image in zip(figure.axes, images, strict=False):
        (drawn,) = axis.images
        assert (drawn.get_cmap().name, drawn.get_interpolation(), drawn.get_clim()) == ("magma", "nearest", (0, 1))
        np.testing.assert_allclose(drawn.get_array(), stretch(image))
    few = mosaic(images[:2], ["a", "b"])
    assert (grid(few), size(few)) == ((1, 2), [3.0, 1.72])
    assert grid(mosaic(np.ones((7, 4, 4)), list("abcdefg"))) == (2, 6)
    titles = mosaic(images[:2], ["a" * 18, "b" * 9 + "c" * 10]).axes
    assert [axis.get_title() for axis in titles] == ["a" * 18, "b" * 9 + "…" + "c" * 8]


def test_look_of_a_preview():
    rng = np.random.default_rng(0)
    images = [rng.random((4, 16, 16)) for _ in range(2)]
    residuals = np.full((4, 16, 16), -2.0)
    residuals[0, 3, 4], residuals[2, 0, 1] = 8.54, 700.0  # of 1024 pixels, 2 are above the limit
    figure = preset_preview(images, [None, residuals], ["no", "strong"], 0.1)
    assert (grid(figure), size(figure)) == ((3, 4), [8.85, 4.8])
    assert margins(figure) == [0.17, 0.88, 0.01, 0.99, 0.04, 0.05]
    assert not any(axis.axison for axis in figure.axes[:12])
    aside = (-0.06, 0.5)
    names = {
        0: ("no", 10.5, INK),
        4: ("strong", 10.5, INK),
        8: ("minus the same\nlens without\nsubstructure", 8.5, QUIET),
    }
    for place, axis in enumerate(figure.axes[:12]):
        text, letters, colour = names.get(place, ("", 0, ""))
        found = texts(axis)[1:] if place == 0 else texts(axis)
        assert found == ([(text, *aside, letters, colour, "right", "center")] if text else [])
        assert len(axis.lines) == (place == 0), "one bar of an arcsecond"
        assert all(each.get_transform() == axis.transAxes for each in axis.texts[place == 0 :])
    for row in range(2):
        for axis, image in zip(figure.axes[4 * row :], images[row], strict=False):
            np.testing.assert_allclose(axis.images[0].get_array(), stretch(image))
    for axis, residual in zip(figure.axes[8:12], residuals, strict=True):
        (drawn,) = axis.images
        np.testing.assert_array_equal(drawn.get_array(), residual)
        assert (drawn.origin, drawn.get_cmap().name, drawn.get_clim()) == ("lower", "RdBu_r", (-2, 2))
    bar = figure.axes[12]
    assert [text_look(label) for label in bar.get_yticklabels()] == [
        ("−2 σ", 1, -2, 8, INK, "left", "center_baseline"),
        ("0", 1, 0, 8, INK, "left", "center_baseline"),
        ("+2 σ", 1, 2, 8, INK, "left", "center_baseline"),
    ]
    assert {tick.tick2line.get_markersize() for tick in bar.yaxis.get_major_ticks()} == {0}
    assert not bar.spines["outline"].get_visible()
    assert bar._colorbar.extend == "both"
    last, beside = figure.axes[11].get_position(), bar.get_position(original=True)
    assert beside.x0 == pytest.approx(last.x1 + 0.012)
    assert beside.y0 == pytest.approx(last.y0 + 0.08 * last.height)
    assert (beside.width, beside.height) == (pytest.approx(0.013), pytest.approx(0.84 * last.height))


@pytest.mark.parametrize(("strongest", "limit"), [(0.0, 1.0), (0.01234, 0.012)])
def test_residuals_of_few_pixels_or_none_have_a_scale(strongest, limit):
    residuals = np.zeros((2, 40, 40))
    residuals[1, 5, 6] = -strongest
    figure = preset_preview([np.ones((2, 40, 40))], [residuals], ["a"], 0.1)
    assert figure.axes[2].images[0].get_clim() == (-limit, limit)


def test_look_of_an_explanation():
    rng = np.random.default_rng(0)
    images, maps = rng.random((4, 16, 16)), rng.normal(0, 1, (4, 16, 16))
    figure = explanation(images, maps, ["c" * 48, "d" * 20 + "e" * 40, "f", "g"], pixel_scale=0.2)
    assert (grid(figure), size(figure)) == ((2, 6), [10.2, 4.16])
    assert margins(figure) == [0.01, 0.99, number(0.2 / 4.16), number(1 - 0.24 / 4.16), 0.04, 0.16]
    assert not any(axis.axison for axis in figure.axes)
    sentence = "red pixels speak for the answer, blue ones against it"
    assert texts(figure) == [(sentence, 0.01, number(0.05 / 4.16), 7.5, QUIET, "left", "baseline")]
    assert [len(axis.lines) for axis in figure.axes] == [1] + [0] * 11
    assert [axis.get_title(loc="left") for axis in figure.axes[::2]] == [
        "c" * 48, "d" * 13 + "…" + "e" * 34, "f", "g", "", ""
    ]  # fmt: skip
    title = figure.axes[0]._left_title
    assert text_look(title)[3:5] == (8, INK)
    assert title.get_fontweight() == "normal"
    for k in range(4):
        left, right = figure.axes[2 * k : 2 * k + 2]
        np.testing.assert_allclose(left.images[0].get_array(), stretch(images[k]))
        (drawn,) = right.images
        smooth = gaussian_filter(maps[k], 1.0)
        np.testing.assert_allclose(drawn.get_array(), smooth)
        high = np.quantile(np.abs(smooth), 0.995)
        np.testing.assert_allclose(drawn.get_clim(), (-high, high))
        assert (drawn.origin, drawn.get_cmap().name) == ("lower", "RdBu_r")
        (contours,) = right.collections
        assert contours.levels.tolist() == [0.35, 0.7]
        assert contours.get_alpha() == 0.45
        assert contours.get_linewidths().tolist() == [0.5, 0.5]
        np.testing.assert_allclose(contours.get_edgecolors()[0], [29 / 255, 37 / 255, 48 / 255, 0.45])
    single = explanation(images[:1], maps[:1] * 0, ["c"])
    assert (grid(single), size(single)) == ((1, 2), [3.4, 2.18])
    assert single.axes[1].images[0].get_clim() == (-1, 1), "nothing speaks for or against"


def test_contours_of_an_explanation_follow_the_smoothed_image():
    y, x = np.mgrid[:24, :24]
    image = np.exp(-((x - 15) ** 2 + (y - 8) ** 2) / 20.0)
    figure = explanation([image], [image], ["c"])
    smooth = gaussian_filter(stretch(image), 1.0)
    for level, path in zip((0.35, 0.7), figure.axes[1].collections[0].get_paths(), strict=True):
        for px, py in path.vertices[::5]:
            i, j = int(py), int(px)
            corners = smooth[i : i + 2, j : j + 2]
            assert corners.min() <= level <= corners.max()


def test_saved_figures_are_trimmed_and_freed(tmp_path):
    path = tmp_path / "new" / "folder" / "a.png"
    figure = mosaic(np.random.default_rng(0).random((1, 9, 9)), [""], side=2.0)
    save(figure, path)
    with Image.open(path) as image:
        width, height = image.size
        assert round(image.info["dpi"][0]) == 140
    # The axes of 0.98 of two inches, and 0.08 of an inch at each end.
    assert width == pytest.approx(140 * (1.96 + 0.16), abs=2)
    assert height < 140 * 2.22
    assert plt.get_fignums() == []
    other = mosaic(np.ones((1, 9, 9)), ["a"])
    save(other, path)
    kept = mosaic(np.ones((1, 9, 9)), ["a"])
    save(other, path.with_suffix(".svg"))
    assert plt.get_fignums() == [kept.number]
    assert path.with_suffix(".svg").read_text().lstrip().startswith("<?xml")


def test_colours_are_white_in_the_median_and_red_where_red():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-16:17, -16:17]
    spot = np.exp(-(x**2 + y**2) / 20.0)
    weights = np.array([[4.0, 4.0, 4.0], [1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [9.0, 3.0, 1.0], [1.0, 3.0, 9.0]])
    bands = np.array([10.0, 1.0, 5.0])  # which have units of their own
    images = (weights * bands)[:, :, None, None] * spot + rng.normal(0, 0.01, (5, 3, 33, 33)) * bands[:, None, None]
    found = colour_pictures(images.astype(np.float32))
    assert found.shape == (5, 33, 33, 3)
    assert found.min() >= 0
    assert found.max() <= 1
    middle = found[:, 12, 12]
    assert np.ptp(middle[1]) < 0.1
    assert middle[3][0] > middle[3][2] + 0.2
    assert middle[4][2] > middle[4][0] + 0.2
    assert found[:, 0, 0].mean() < 0.15 < middle[1].mean()


def test_scenes_have_a_row_for_each_class_and_a_bar():
    images = [np.random.default_rng(0).random((3, 20, 20, 3)), np.random.default_rng(1).random((2, 20, 20, 3))]
    figure = scene_preview(images, ["lens", "chance_pair"], 0.5)
    drawn = [axis.images[0].get_array() if axis.images else None for axis in figure.axes]
    assert len(drawn) == 6
    assert [each is None for each in drawn] == [False, False, False, False, False, True]
    assert np.array_equal(drawn[3], images[1][0])
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts == ["1″", "lens", "chance pair"]
    (bar,) = figure.axes[0].lines
    assert np.ptp(bar.get_xdata()) == pytest.approx(2)


def test_images_of_three_bands_are_drawn_in_colour_whatever_their_order():
    """A source that is bright in i alone is red, whether i is the last band or the first."""
    rng = np.random.default_rng(3)
    images = rng.normal(0, 1, (4, 3, 16, 16)).astype(np.float32)
    images[:, :, 6:10, 6:10] += 100
    images[1, 2, 6:10, 6:10] += 2000
    drawn = drawn_images(images, ("g", "r", "i"))
    assert drawn.shape == (4, 16, 16, 3)
    red, green, blue = drawn[1, 7, 7]
    assert red > 2 * green
    assert red > 2 * blue
    np.testing.assert_array_equal(drawn_images(images[:, ::-1], ("i", "r", "g")), drawn)
    assert np.ptp(drawn[0, 7, 7]) < 0.2


def test_a_band_is_drawn_where_there_are_no_colours():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    np.testing.assert_array_equal(drawn_images(images, ()), images[:, 0])
    np.testing.assert_array_equal(drawn_images(images[:, :2], ("J", "VIS")), images[:, 1])
    np.testing.assert_array_equal(drawn_images(images, ("R", "G", "B")), np.moveaxis(images, 1, -1) / 255)
    assert drawn_images(images[:0], ("g", "r", "i")).shape == (0, 4, 4)
