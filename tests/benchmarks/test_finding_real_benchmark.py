"""Parts of the benchmark on real lenses whose answer is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def real():
    sys.path.insert(0, str(BENCHMARKS))
    import finding_real

    yield finding_real
    sys.path.remove(str(BENCHMARKS))


def test_pairs_have_nearly_one_magnitude_and_share_nothing(real):
    rng = np.random.default_rng(0)
    lenses, galaxies = rng.normal(18, 1, 60), rng.normal(19, 1, 80)
    ours, theirs = real.paired(lenses, galaxies, 0.25)
    assert 20 < len(ours) == len(set(ours)) == len(set(theirs))
    assert np.abs(lenses[ours] - galaxies[theirs]).max() < real.MATCHED
    assert [len(each) for each in real.paired(np.array([18.0]), np.array([25.0]), 0.25)] == [0, 0]


def test_magnitudes_are_those_of_the_flux_above_the_sky(real):
    y, x = np.mgrid[:32, :32] - 15.5
    image = 1000 / (2 * np.pi) * np.exp(-0.5 * (x**2 + y**2)) + 7
    images = np.stack([np.zeros((32, 32)), image])[None]
    assert real.magnitudes(images, 1, 25.0) == pytest.approx(25 - 2.5 * np.log10(1000), abs=0.01)


def test_pictures_are_brighter_where_images_are_and_differ_in_stretch(real):
    rng = np.random.default_rng(1)
    image = np.linspace(0, 60, 3 * 16 * 16).reshape(3, 16, 16)
    made = [real.picture(image, rng) for _ in range(20)]
    assert all(each.dtype == np.uint8 and (np.diff(each.reshape(3, -1).astype(int)) >= 0).all() for each in made)
    assert len({each.tobytes() for each in made}) == 20
    levels = np.array([np.median(each) for each in made])
    assert levels.max() > 1.5 * levels.min()


def test_lenses_that_rank_above_all_galaxies_are_all_found(real, capsys):
    found = real.compared("separate", np.arange(20.0) + 100, np.arange(200.0) / 2)
    assert found["auc"]["value"] == found["above_1"]["value"] == 1
    assert "20 lenses, 200 galaxies" in capsys.readouterr().out
    mixed = real.compared("alike", np.arange(100.0), np.arange(100.0))
    assert mixed["auc"]["value"] == pytest.approx(0.5)
    assert mixed["above_10"]["value"] == pytest.approx(0.1, abs=0.02)
