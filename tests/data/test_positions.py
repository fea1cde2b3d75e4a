"""Positions on the sky, against astropy."""

import numpy as np
import polars as pl
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from darklens.data import positions as module
from darklens.data.positions import lenscat_table, near, objects_at, positions_of, read_positions
from darklens.errors import DataError

ARCSEC = 1 / 3600


def test_near_is_astropys_separation():
    rng = np.random.default_rng(0)
    here = np.stack([rng.uniform(0, 360, 400), np.degrees(np.arcsin(rng.uniform(-1, 1, 400)))], 1)
    here[:4] = [[359.9999, 0], [10, 89.9999], [0, 0], [np.nan, 3]]
    there = here[::2] + rng.normal(0, 3 * ARCSEC, (200, 2))
    there[0] = [0.0001, 0]
    there[1] = [190, 89.9999]
    found = near(here, there, 3.0)
    good = np.isfinite(here).all(1)
    sky, others = (SkyCoord(*of.T, unit="deg") for of in (here[good], there[np.isfinite(there).all(1)]))
    expected = np.zeros(400, bool)
    expected[good] = sky.match_to_catalog_sky(others)[1] < 3 * units.arcsec
    assert found.tolist() == expected.tolist()
    assert found[0]
    assert found[1]
    assert not found[3]
    assert 20 < found.sum() < 180
    assert not near(here, np.zeros((0, 2)), 3.0).any()


def test_cutouts_of_one_object_share_a_number():
    places = np.array(
        [[10, 5], [10, 5 + 2 * ARCSEC], [10, 5 + 4 * ARCSEC], [10, 5 + 9 * ARCSEC], [np.nan, 5], [np.nan, 5]]
    )
    numbers = objects_at(places, 3.0)
    assert numbers[0] == numbers[1] == numbers[2], "a chain"
    assert len(set(numbers.tolist())) == 4
    assert len(set(objects_at(np.full((3, 2), np.nan), 3.0).tolist())) == 3


def test_tables_of_lenses_name_positions_in_many_ways(tmp_path):
    (tmp_path / "a.csv").write_text("name,RA [deg],DEC [deg],zlens\nx,10.5,-3,0.3\ny,-,-,-\n")
    assert read_positions(tmp_path / "a.csv").tolist() == [[10.5, -3.0]]
    pl.DataFrame({"raj2000": [1.0], "dej2000": [2.0]}).write_parquet(tmp_path / "b.parquet")
    assert read_positions(tmp_path / "b.parquet").tolist() == [[1.0, 2.0]]
    (tmp_path / "c.csv").write_text("name,l,b\nx,10.5,-3\n")
    with pytest.raises(
        DataError, match=r"c\.csv: no columns of positions \(ra and dec, degrees\); there are name, l, b"
    ):
        read_positions(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("ra,dec\n00:10:03,+10:04:01\n")
    with pytest.raises(DataError, match="ra and dec hold no degrees"):
        read_positions(tmp_path / "d.csv")
    with pytest.raises(DataError, match="there is no such"):
        read_positions(tmp_path / "e.csv")


def test_positions_of_a_catalogue_are_numbers_or_none():
    found = positions_of(pl.DataFrame({"ra": [1, None], "dec": [2.5, 3.0]}))
    np.testing.assert_array_equal(found, [[1, 2.5], [np.nan, 3]])
    assert positions_of(pl.DataFrame({"ra": ["00:10"], "dec": ["1"]})) is None
    assert positions_of(pl.DataFrame({"ra": [1.0]})) is None


def test_the_table_of_lenscat_is_found_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert lenscat_table() is None
    folder = tmp_path / "lenscat"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "catalog.csv").write_text("name,RA [deg],DEC [deg]\nx,1,2\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(folder)]})
    monkeypatch.setattr(module, "find_spec", lambda name: spec if name == "lenscat" else None)
    assert read_positions(lenscat_table()).tolist() == [[1.0, 2.0]]
