"""Images in which nothing is seen: a search ranks them last without a probability, a prediction names them."""

import numpy as np
import polars as pl
import pytest
from conftest import write_rings

from darklens.data.checks import empty_images
from darklens.data.options import DataOptions
from darklens.workflows.find import find_lenses
from darklens.workflows.options import PredictionOptions, SearchOptions
from darklens.workflows.predict import predict_paths

FILLS = {3: 0.0, 11: 7.5, 12: -2.0, 20: np.nan, 21: "some are nan", 33: 0.0, 39: np.inf}
"""Images of the dataset that are empty, and the value of their pixels."""
EMPTY = [f"o8-{row}" for row in FILLS]


@pytest.fixture
def survey(tmp_path):
    """Images of which some are empty, and one has a single pixel that differs."""
    folder = write_rings(tmp_path / "rings", 40, 8)
    images = np.load(folder / "images.npy")
    for row, value in FILLS.items():
        images[row] = 4.0 if isinstance(value, str) else value
        if isinstance(value, str):
            images[row, :, ::2] = np.nan
    images[5] = 0
    images[5, 0, 4, 4] = 1
    np.save(folder / "images.npy", images)
    return folder


def test_empty_images_are_those_of_a_brute_force_count():
    rng = np.random.default_rng(0)
    images = rng.choice([0.0, 1.0, np.nan, np.inf, -np.inf], p=[0.7, 0.02, 0.2, 0.04, 0.04], size=(300, 2, 3, 3))
    expected = [
        all(len({value for value in band.ravel().tolist() if np.isfinite(value)}) <= 1 for band in image)
        for image in images
    ]
    assert 20 < sum(expected) < 280
    assert empty_images(images.astype(np.float32)).tolist() == expected
    finite = np.nan_to_num(images, posinf=0, neginf=0)
    brute = [all(len(np.unique(band)) == 1 for band in image) for image in finite]
    assert empty_images(finite).tolist() == empty_images(finite.astype(int)).tolist() == brute
    large = np.full((1, 1, 8, 8), 3e38, np.float32)
    assert empty_images(large).all(), "their sum is finite as float64"


@pytest.mark.parametrize("skip", [False, True])
def test_a_search_ranks_them_last_without_a_probability(finding_run, survey, tmp_path, skip):
    options = DataOptions(mask=not skip)
    empty = [name for name, value in zip(EMPTY, FILLS.values(), strict=True) if not skip or value in (0.0, 7.5, -2.0)]
    count = 40 if not skip else 37
    search = SearchOptions(known_lenses="false", skip=skip, mosaic=tmp_path / "page.html")
    found = find_lenses(finding_run, [survey], tmp_path / "list.parquet", search=search, options=options)
    choices = PredictionOptions(skip=skip)
    written = predict_paths(finding_run, [survey], tmp_path / "all.parquet", choices=choices, options=options)
    predicted, ranked = (pl.read_parquet(tmp_path / name) for name in ("all.parquet", "list.parquet"))
    p = dict(zip(predicted["id"], predicted["p_lens"], strict=True))
    others = [name for name in predicted["id"] if name not in empty]
    assert len(ranked) == count
    assert "o8-5" in others
    assert ranked["id"].to_list() == [*sorted(others, key=lambda name: -p[name]), *empty]
    assert ranked["probability"].to_list() == [
        *sorted((p[name] for name in others), reverse=True),
        *[None] * len(empty),
    ]
    assert (found.first, found.expected) == (len(others), pytest.approx(sum(p[name] for name in others)))
    said = f"{len(empty)} of {count} images are empty (all pixels of a band have one value, or none): "
    named = ", ".join(empty[:5]) + (" and others" if len(empty) > 5 else "")
    assert f"{said}{named}; they have no probability, and come last" in found.notes
    assert f"{said}{named}; what is predicted of them means nothing" in written.notes
    assert not any("is no number for them" in note for note in found.notes)
    assert not any(name in (tmp_path / "page.html").read_text() for name in (f">{name}<" for name in empty))


def test_nothing_is_said_where_none_is_empty(finding_run, tmp_path):
    data = write_rings(tmp_path / "rings", 20, 9)
    assert not any("empty" in note for note in predict_paths(finding_run, [data], tmp_path / "all.csv").notes)
