"""Positions on the sky: which objects are near those of a table, and which images show the same one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from darklens.data.readers.catalogs import ALIASES, read_table
from darklens.errors import DataError
from darklens.paths import check_present


def read_positions(path: Path) -> np.ndarray:
    """Return the positions in a table, right ascension and declination in degrees, (n, 2); rows without one are left out.

    Raises
    ------
    DataError
        If it has no such columns, or no row holds numbers in them.
    """
    return read_named_positions(path)[1]


def read_named_positions(path: Path) -> tuple[list[str], np.ndarray]:
    """Return names and positions of the objects in a table, as `read_positions`; rows without a name have their number.

    Raises
    ------
    DataError
        If it has no such columns, or no row holds numbers in them.
    """
    check_present(path)
    frame = read_table(path)
    plain = {name.lower().replace("[deg]", "").strip(): name for name in reversed(frame.columns)}
    columns = [next((plain[alias] for alias in ALIASES[name] if alias in plain), None) for name in ("ra", "dec")]
    if None in columns:
        raise DataError(f"{path}: no columns of positions (ra and dec, degrees); there are {', '.join(frame.columns)}")
    named = next((plain[alias] for alias in ("name", *ALIASES["id"]) if alias in plain), None)
    numbers = pl.int_range(len(frame), eager=True).cast(pl.String)
    names = numbers if named is None else frame[named].cast(pl.String).fill_null(numbers)
    chosen = frame.select(pl.col(str(name)).cast(pl.Float64, strict=False) for name in columns)
    finite = chosen.select(pl.all_horizontal(pl.all().is_finite()).fill_null(False)).to_series()
    positions = chosen.filter(finite).to_numpy()
    if len(frame) and not len(positions):
        raise DataError(f"{path}: {columns[0]} and {columns[1]} hold no degrees")
    return names.filter(finite).to_list(), positions


def nearest(positions: np.ndarray, others: np.ndarray, arcsec: float) -> tuple[np.ndarray, np.ndarray]:
    """Return for each position the nearest of others, and how far it is.

    Parameters
    ----------
    positions, others
        Right ascensions and declinations, degrees, (N, 2) and (M, 2); those with nan are near to none.
    arcsec
        Within what distance.

    Returns
    -------
    tuple of numpy.ndarray
        Row numbers among the others (N,), -1 where none is so near, and distances (N,), arcsec, nan where none is.
    """
    rows, apart = np.full(len(positions), -1), np.full(len(positions), np.nan)
    good, usable = np.flatnonzero(np.isfinite(positions).all(1)), np.flatnonzero(np.isfinite(others).all(1))
    if len(good) and len(usable):
        chord, place = _tree(others[usable]).query(_directions(positions[good]), distance_upper_bound=_chord(arcsec))
        here = np.isfinite(chord)
        rows[good[here]] = usable[place[here]]
        apart[good[here]] = np.degrees(2 * np.arcsin(chord[here] / 2)) * 3600
    return rows, apart


def positions_of(catalog: pl.DataFrame) -> np.ndarray | None:
    """Return the columns ``ra`` and ``dec`` of a catalogue, degrees, (N, 2); None if it has no such numbers."""
    if not all(name in catalog.columns and catalog.schema[name].is_numeric() for name in ("ra", "dec")):
        return None
    return catalog.select(pl.col("ra", "dec").cast(pl.Float64).fill_null(np.nan)).to_numpy()


def near(positions: np.ndarray, others: np.ndarray, arcsec: float) -> np.ndarray:
    """Return which positions (N, 2) have one of others (M, 2) nearer than some arcsec, (N,) of bool; degrees.

    Parameters
    ----------
    positions, others
        Right ascensions and declinations, degrees; those with nan are near to none.
    arcsec
        The distance.

    Returns
    -------
    np.ndarray
        True where one is near.
    """
    found = np.zeros(len(positions), dtype=bool)
    good, others = np.isfinite(positions).all(1), others[np.isfinite(others).all(1)]
    if good.any() and len(others):
        distance = _tree(others).query(_directions(positions[good]), distance_upper_bound=_chord(arcsec))[0]
        found[good] = distance < np.inf
    return found


def objects_at(positions: np.ndarray, arcsec: float) -> np.ndarray:
    """Return a number for each position (N, 2) that is the same for those nearer to each other than some arcsec, (N,).

    Parameters
    ----------
    positions
        Right ascensions and declinations, degrees; one with nan is an object of its own.
    arcsec
        The distance; chains of positions are one object.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    good = np.flatnonzero(np.isfinite(positions).all(1))
    pairs = np.zeros((0, 2), int)
    if len(good):
        pairs = _tree(positions[good]).query_pairs(_chord(arcsec), output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), (good[pairs[:, 0]], good[pairs[:, 1]])), shape=(len(positions),) * 2)
    return np.asarray(connected_components(links, directed=False)[1])


def lenscat_table() -> Path | None:
    """Return the table of known lenses in the package lenscat; None if it is not installed."""
    spec = find_spec("lenscat")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "data" / "catalog.csv"
    return path if path.is_file() else None


def _tree(positions: np.ndarray) -> Any:
    from scipy.spatial import cKDTree

    return cKDTree(_directions(positions))


def _directions(positions: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3)."""
    ra, dec = np.radians(positions).T
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _chord(arcsec: float) -> float:
    """Length of the chord between two directions so far apart."""
    return float(2 * np.sin(np.radians(arcsec / 3600) / 2))
