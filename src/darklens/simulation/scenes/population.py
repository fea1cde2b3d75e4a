"""Lenses of a table of others, such as a published forecast, in the place of those that `Sky` draws."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.random import Generator

from darklens.errors import PresetError
from darklens.simulation.priors import Floats
from darklens.simulation.scenes.presets import POPULATION_SUFFIXES, Population, ScenePreset
from darklens.simulation.scenes.sky import Galaxies, Lenses, Sky, extended_magnification

Rows = dict[str, Floats]

DEFAULTS = {"lens_n_sersic": 4.0, "source_n_sersic": 1.0}
"""Sérsic indices of a table without them: those of de Vaucouleurs and of an exponential disc."""

BOUNDS = {
    "theta_E": (0.0, 100.0), "sigma_v": (0.0, 3000.0), "R_sersic": (1e-4, 100.0), "n_sersic": (0.2, 10.0),
    "axis_ratio": (0.0, 1.0 + 1e-9), "e1": (-1.0, 1.0), "e2": (-1.0, 1.0), "magnitude": (0.0, 40.0),
}  # fmt: skip
"""Values of a column, whatever it is a column of, are above the first and below the second."""


class TableSky(Sky):
    """A sky whose lenses are rows of a table; neighbours and all else are those of `Sky`.

    Parameters
    ----------
    preset
        One with a ``population``.

    Raises
    ------
    PresetError
        If the table cannot be read, lacks a column, or holds a value that is impossible.
    """

    def __init__(self, preset: ScenePreset):
        super().__init__(preset)
        assert preset.population is not None
        self._rows = read_population(preset.population, preset)

    def lenses(self, rng: Generator, count: int) -> Lenses:
        """Draw rows of the table, each as likely as any other, with replacement. The preset's rules are not applied.

        An ellipticity that is given as an axis ratio has a random angle. Sources without a place are uniform within the
        Einstein radius.

        Parameters
        ----------
        rng
            Random numbers.
        count
            How many.
        """
        number = rng.integers(len(self._rows["z_lens"]), size=count)
        rows = {name: values[number] for name, values in self._rows.items()}
        deflector, source = (self._galaxies(rng, rows, what) for what in ("lens", "source"))
        sigma_v, theta_E = self._masses(rows)
        if "source_x" in rows:
            x, y = rows["source_x"], rows["source_y"]
        else:
            radius, angle = theta_E * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * math.pi, count)
            x, y = radius * np.cos(angle), radius * np.sin(angle)
        magnification = extended_magnification(theta_E, np.hypot(x, y), source.R_sersic)
        snr, _ = self.arc_visibility(source, deflector, theta_E, magnification)
        return Lenses(deflector, source, sigma_v, theta_E, x, y, magnification, snr, number.astype(np.float64))

    def _galaxies(self, rng: Generator, rows: Rows, what: str) -> Galaxies:
        """The deflectors or sources of rows, whose spectra are not known."""
        count = len(rows["z_lens"])
        magnitudes = np.stack([rows[f"{what}_magnitude_{band}"] for band in self.preset.bands], axis=1)
        if f"{what}_e1" in rows and f"{what}_e2" in rows:
            e1, e2 = rows[f"{what}_e1"], rows[f"{what}_e2"]
        else:
            q, angle = rows[f"{what}_axis_ratio"], rng.uniform(0, 2 * math.pi, count)
            e1, e2 = (1 - q) / (1 + q) * np.cos(angle), (1 - q) / (1 + q) * np.sin(angle)
        n = rows.get(f"{what}_n_sersic", np.full(count, DEFAULTS[f"{what}_n_sersic"]))
        return Galaxies(rows[f"z_{what}"], np.full(count, np.nan), magnitudes, rows[f"{what}_R_sersic"], n, e1, e2)

    def _masses(self, rows: Rows) -> tuple[Floats, Floats]:
        """Velocity dispersions and Einstein radii; where one is not given, that of an isothermal sphere by the other."""
        at_100 = self.einstein_radius(np.full(len(rows["z_lens"]), 100.0), rows["z_lens"], rows["z_source"])
        theta_E = rows["theta_E"] if "theta_E" in rows else at_100 * (rows["sigma_v"] / 100) ** 2
        sigma_v = rows["sigma_v"] if "sigma_v" in rows else 100 * np.sqrt(theta_E / at_100)
        return sigma_v, theta_E


def read_population(population: Population, preset: ScenePreset) -> Rows:
    """Return the columns of a table of lenses, each (N,), by our names.

    Parameters
    ----------
    population
        The table, and the names of its columns.
    preset
        Says which bands are needed, and the highest redshift.

    Returns
    -------
    Rows
        Redshifts, Einstein radii (arcsec) or velocity dispersions (km/s), AB magnitudes, half-light radii (arcsec) and
        shapes; source places from the deflector (arcsec), if the table has them.

    Raises
    ------
    PresetError
        If the table cannot be read, lacks a column, or holds a value that is impossible.
    """
    path = Path(population.table)
    frame = _table(path)
    if not frame.height:
        raise PresetError(f"{path}: a table of lenses without rows")
    bands = list(preset.bands)
    known = _known(bands)
    for ours in population.columns:
        if ours not in known:
            hint = difflib.get_close_matches(ours, known, 1)
            raise PresetError(
                f"population.columns: no {ours!r}{f'; did you mean {hint[0]!r}?' if hint else ''}. There are "
                f"{', '.join(known)}"
            )
    names = {ours: population.columns.get(ours, ours) for ours in known}
    _check_columns(path, frame, names, bands, population.columns)
    rows = {ours: _numbers(path, frame, theirs) for ours, theirs in names.items() if theirs in frame.columns}
    _check_values(path, rows, preset.z_source)
    return rows


def _known(bands: list[str]) -> list[str]:
    """All names that a column of a table of lenses can have."""
    shapes = ("R_sersic", "n_sersic", "e1", "e2", "axis_ratio", *(f"magnitude_{band}" for band in bands))
    each = [f"{what}_{shape}" for what in ("lens", "source") for shape in shapes]
    return ["theta_E", "sigma_v", "z_lens", "z_source", "source_x", "source_y", *each]


def _check_columns(
    path: Path, frame: pl.DataFrame, names: Mapping[str, str], bands: list[str], given: Mapping[str, str]
) -> None:
    """Refuse a table that lacks what is needed, or what the preset says that it has; the error lists all at once."""
    if absent := [theirs for theirs in given.values() if theirs not in frame.columns]:
        raise PresetError(f"{path}: no column {', '.join(absent)}; there are {', '.join(frame.columns)}")

    def has(ours: str) -> bool:
        return names[ours] in frame.columns

    lacking = [name for name in ("z_lens", "z_source") if not has(name)]
    if not has("theta_E") and not has("sigma_v"):
        lacking.append("theta_E or sigma_v")
    if has("source_x") != has("source_y"):
        lacking.append("source_y" if has("source_x") else "source_x")
    for what in ("lens", "source"):
        needed = (f"{what}_R_sersic", *(f"{what}_magnitude_{band}" for band in bands))
        lacking += [name for name in needed if not has(name)]
        if not (has(f"{what}_e1") and has(f"{what}_e2")) and not has(f"{what}_axis_ratio"):
            lacking.append(f"{what}_e1 and {what}_e2 (or {what}_axis_ratio)")
    if lacking:
        raise PresetError(
            f"{path}: no column for {', '.join(lacking)}; it has {', '.join(frame.columns)}. Give each under "
            "population.columns, our name: the table's"
        )


def _numbers(path: Path, frame: pl.DataFrame, name: str) -> Floats:
    """A column as numbers, of which none is missing."""
    if not (column := frame[name]).dtype.is_numeric():
        raise PresetError(f"{path}: column {name} holds {column.dtype}; expected numbers")
    found: Floats = column.cast(pl.Float64).fill_null(np.nan).to_numpy().astype(np.float64)
    if not (finite := np.isfinite(found)).all():
        raise PresetError(
            f"{path}: column {name} has no number in {(~finite).sum()} rows, the first is row {int(finite.argmin())} "
            "(counted from 0); leave these rows out"
        )
    return found


def _check_values(path: Path, rows: Rows, highest: float) -> None:
    """Refuse values that no lens has; the error names the first row."""

    def check(right: np.ndarray, name: str, text: str) -> None:
        if not right.all():
            row = int(right.argmin())
            raise PresetError(
                f"{path}: {name} {text}; row {row} (counted from 0) has {rows[name][row]:g}, and {(~right).sum()} rows in "
                "all are wrong"
            )

    for name, values in rows.items():
        low, high = BOUNDS.get(name) or BOUNDS.get(name.split("_", 1)[-1]) or (-math.inf, math.inf)
        low, high = BOUNDS["magnitude"] if "_magnitude_" in name else (low, high)
        check((values > low) & (values < high), name, f"must be above {low:g} and below {high:g}")
    check(rows["z_lens"] > 0, "z_lens", "must be above 0")
    check(rows["z_source"] > rows["z_lens"], "z_source", "must be above z_lens")
    check(rows["z_source"] <= highest, "z_source", f"must be at most the preset's z_source of {highest:g}")
    for what in ("lens", "source"):
        if f"{what}_e1" in rows and f"{what}_e2" in rows:
            check(
                np.hypot(rows[f"{what}_e1"], rows[f"{what}_e2"]) < 1,
                f"{what}_e1",
                "and e2 must be inside the unit circle",
            )


def _table(path: Path) -> pl.DataFrame:
    """A table of one value in a column and row. Readers of users' catalogues are in a package above this one."""
    try:
        if path.suffix == ".csv":
            return pl.read_csv(path, comment_prefix="#", infer_schema_length=10_000)
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if path.suffix in POPULATION_SUFFIXES:
            from astropy.table import Table

            table = Table.read(path)
            return pl.DataFrame({name: table[name].tolist() for name in table.colnames if table[name].ndim == 1})
    except Exception as error:
        raise PresetError(f"{path}: cannot be read as a table of lenses: {error}") from error
    raise PresetError(f"{path}: not a table of lenses; expected {', '.join(POPULATION_SUFFIXES)}")
