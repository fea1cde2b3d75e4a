"""Lenses of a table: what its rows say is what is drawn, whatever its format and the names of its columns."""

import numpy as np
import polars as pl
import pytest
import yaml
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from darklens.data.synthesis import simulate_dataset
from darklens.errors import DataError, PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.scenes.population import TableSky
from darklens.simulation.scenes.sky import Sky

BANDS = ("g", "r", "i")


def lenses(rows=5):
    """A table of different lenses, with our names."""
    number = np.arange(rows)
    columns = {"theta_E": 1 + 0.1 * number, "sigma_v": 220.0 + number, "z_lens": 0.3 + 0.02 * number}
    columns |= {"z_source": 1.0 + 0.1 * number, "source_x": 0.05 * number, "source_y": 0.1 + 0 * number}
    for what, faint in (("lens", 18.0), ("source", 23.0)):
        columns |= {f"{what}_magnitude_{band}": faint + number + 0.5 * i for i, band in enumerate(BANDS)}
        columns |= {f"{what}_R_sersic": 0.2 + 0.1 * number, f"{what}_n_sersic": 1.5 + 0.1 * number}
        columns |= {f"{what}_e1": 0.01 * number, f"{what}_e2": -0.02 * number}
    return pl.DataFrame(columns)


@pytest.fixture
def preset(tmp_path):
    """A function that writes a table and a preset of its lenses, and loads it."""

    def made(frame, columns=None, suffix=".csv", extends="finding-hsc"):
        path = tmp_path / f"lenses{suffix}"
        if suffix == ".csv":
            frame.write_csv(path)
        elif suffix == ".parquet":
            frame.write_parquet(path)
        else:
            Table(frame.to_dict(as_series=False)).write(path, overwrite=True)
        content = {"extends": extends, "population": {"table": path.name, "columns": columns or {}}}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
        return load_preset(tmp_path / "own.yaml")

    return made


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".fits", ".ecsv"])
def test_catalogues_hold_what_the_rows_of_the_table_say(preset, suffix):
    table = lenses()
    catalog = Simulator(preset(table, suffix=suffix)).catalog(72)
    drawn = catalog.filter(pl.col("object") == "lens")
    assert len(drawn) == 18
    rows = table[drawn["population_row"].cast(int).to_list()]
    same = {
        name: name for name in ("theta_E", "sigma_v", "z_lens", "z_source", "source_magnitude_i", "source_n_sersic")
    }
    same |= {"galaxy_magnitude_r": "lens_magnitude_r", "galaxy_R_sersic": "lens_R_sersic", "galaxy_e1": "lens_e1"}
    for ours, theirs in same.items():
        np.testing.assert_allclose(drawn[ours], rows[theirs], rtol=1e-6)
    np.testing.assert_allclose(drawn["source_x"] - drawn["lens_x"], rows["source_x"], atol=1e-6)


def test_columns_of_other_names_are_found(preset):
    table = lenses().rename({"theta_E": "b", "z_lens": "zl", "lens_magnitude_g": "mag_g"})
    columns = {"theta_E": "b", "z_lens": "zl", "lens_magnitude_g": "mag_g"}
    named = Simulator(preset(table, columns)).catalog(64).select("theta_E", "galaxy_magnitude_g")
    assert set(named["theta_E"].drop_nulls().round(6)) <= set(table["b"].round(6))


def test_all_rows_are_drawn_about_as_often(preset):
    drawn = TableSky(preset(lenses())).lenses(np.random.default_rng(0), 5000)
    counts = np.bincount(drawn.row.astype(int), minlength=5)
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(800)


@pytest.mark.parametrize("lacking", ["theta_E", "sigma_v"])
def test_einstein_radius_and_velocity_dispersion_are_those_of_an_isothermal_sphere(preset, lacking):
    own = preset(lenses().drop(lacking))
    drawn = TableSky(own).lenses(np.random.default_rng(0), 20)
    cosmology = FlatLambdaCDM(H0=own.cosmology.H0, Om0=own.cosmology.Om0)
    for sigma, theta_E, z_lens, z_source in zip(
        drawn.sigma_v, drawn.theta_E, drawn.deflector.z, drawn.source.z, strict=True
    ):
        assert LensCosmo(z_lens, z_source, cosmology).sis_sigma_v2theta_E(sigma) == pytest.approx(theta_E, rel=2e-3)


def test_an_ellipticity_without_its_other_half_gives_way_to_the_axis_ratio(preset):
    table = lenses().drop("lens_e1", "lens_e2", strict=False)
    half = table.with_columns(lens_axis_ratio=pl.lit(0.8), lens_e1=pl.lit(0.9))
    drawn = TableSky(preset(half)).lenses(np.random.default_rng(0), 50)
    np.testing.assert_allclose(np.hypot(drawn.deflector.e1, drawn.deflector.e2), 0.2 / 1.8, rtol=1e-9)


def test_without_places_sources_are_uniform_within_the_einstein_radius(preset):
    drawn = TableSky(preset(lenses().drop("source_x", "source_y"))).lenses(np.random.default_rng(0), 20_000)
    share = (np.hypot(drawn.source_x, drawn.source_y) / drawn.theta_E) ** 2
    assert np.quantile(share, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.02)


@given(q=st.floats(0.1, 1))
def test_ellipticities_of_axis_ratios_have_them(q, tmp_path_factory):
    path = tmp_path_factory.mktemp("q") / "lenses.parquet"
    lenses().drop("lens_e1", "lens_e2").with_columns(lens_axis_ratio=pl.lit(q)).write_parquet(path)
    content = load_preset("finding-hsc").resolved | {"name": "q", "population": {"table": str(path)}}
    drawn = TableSky(load_preset(content)).lenses(np.random.default_rng(0), 4).deflector
    modulus = np.hypot(drawn.e1, drawn.e2)
    np.testing.assert_allclose((1 - modulus) / (1 + modulus), q, atol=1e-9)


def test_images_are_those_of_the_catalogue_and_files_change_the_checksum(preset, tmp_path):
    own = preset(lenses())
    images, _ = Simulator(own, seed=3).block(0)
    assert np.isfinite(np.asarray(images)).all()
    again = Simulator(own, seed=3)
    np.testing.assert_array_equal(again.render(again.catalog(64)), images)
    before = own.checksum
    assert tmp_path / "lenses.csv" in own.files
    other = preset(lenses().with_columns(pl.col("theta_E") * 1.1))
    assert other.checksum != before
    assert other.key == own.key


def test_missing_columns_are_listed_together(preset):
    own = preset(lenses().drop("theta_E", "sigma_v", "z_source", "lens_e1", "source_magnitude_r", "source_y"))
    with pytest.raises(PresetError, match=r"z_source, theta_E or sigma_v, source_y, lens_e1 and lens_e2 \(or "
                       r"lens_axis_ratio\), source_magnitude_r; it has z_lens"):  # fmt: skip
        Simulator(own)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"theta_e": "theta_E"}, "no 'theta_e'; did you mean 'theta_E'"),
        ({"theta_E": "b"}, "no column b; there are theta_E"),
    ],
)
def test_names_of_columns_are_checked(preset, columns, message):
    with pytest.raises(PresetError, match=message):
        Simulator(preset(lenses(), columns))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit(None, pl.Float64).alias("theta_E"), "theta_E has no number in 5 rows"),
        (pl.lit("a").alias("theta_E"), "theta_E holds String"),
        (pl.lit(-1.0).alias("theta_E"), "theta_E must be above 0 .*row 0"),
        (pl.lit(0.2).alias("z_source"), "z_source must be above z_lens"),
        (pl.lit(5.5).alias("z_source"), "at most the preset's z_source of 5"),
        (pl.lit(0.0).alias("source_R_sersic"), "source_R_sersic must be above 0"),
        (pl.lit(-99.0).alias("lens_magnitude_g"), "lens_magnitude_g must be above 0 and below 40; row 0"),
        (pl.lit(700.0).alias("theta_E"), "theta_E must be above 0 and below 100"),
        (pl.lit(0.99).alias("lens_e1") + 0, "lens_e1 and e2 must be inside"),
    ],
)
def test_impossible_values_are_refused(preset, change, message):
    table = lenses().with_columns(pl.lit(0.9).alias("lens_e2"))
    with pytest.raises(PresetError, match=message):
        Simulator(preset(table.with_columns(change), suffix=".parquet"))


def test_tables_that_are_none_are_refused(preset, tmp_path):
    own = preset(lenses())
    (tmp_path / "lenses.csv").unlink()
    with pytest.raises(PresetError, match=r"lenses\.csv: cannot be read"):
        Simulator(own)
    with pytest.raises(PresetError, match=r"lenses\.csv: a table of lenses without rows"):
        Simulator(preset(lenses().clear()))
    with pytest.raises(PresetError, match=r"population\.table: .*lenses\.txt' is none of \.csv"):
        load_preset(own.resolved | {"population": {"table": "lenses.txt"}})
    with pytest.raises(PresetError, match=r"unknown key population\.tabel"):
        load_preset(own.resolved | {"population": {"tabel": "lenses.csv"}})


def test_presets_without_a_table_draw_what_they_drew(preset):
    ordinary = load_preset("finding-hsc")
    drawn = Sky(ordinary).lenses(np.random.default_rng(1), 3)
    assert drawn.row is None
    assert "population_row" not in Simulator(ordinary).catalog(36).columns


def test_simulation_does_not_go_on_with_another_table(preset, tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    own = preset(lenses())
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(own, 64, 0, out=tmp_path / "set", progress=stop)
    preset(lenses().with_columns(pl.col("theta_E") * 1.1))
    with pytest.raises(DataError, match="settings"):
        simulate_dataset(own, 64, 0, out=tmp_path / "set")
