"""Simulated populations beside published ones, on small tables."""

import json

import numpy as np
import pytest

from darklens.errors import DataError


@pytest.fixture(scope="module")
def populations(benchmark_module):
    return benchmark_module("populations")


@pytest.fixture
def tables(tmp_path):
    """Four tables as they are published, of few lenses."""
    rng = np.random.default_rng(0)
    for name, width, magnitudes in (("LSSTc", 25, (8, 16, 23)), ("Euclid", 16, (6, 12, 15))):
        table = rng.uniform(0.7, 1.0, (40, width))
        table[:, 3] = rng.uniform(150, 300, 40)
        table[:, magnitudes[0]], table[:, magnitudes[1]], table[:, magnitudes[2]] = 19, 25, 30
        np.savetxt(tmp_path / f"lenses_{name}.txt", table, header="a header")
    rows = [f"SDSSJ{i} 7.2 -0.9 {0.1 + 0.01 * i} 0.5 2.3 8.4 1.2 3.5 11.3 0.1 {200 + i} 18" for i in range(20)]
    (tmp_path / "SLACS_table.cat").write_text("\n".join(["# name RA dec zd zs", *rows]))
    lines = ["name,RA [deg],DEC [deg],zlens,type,grading,ref"]
    lines += [
        "A | B,1,2,0.9 | 0.58,galaxy,confident,More (2011) - arXiv:1109.1821 | Sonnenfeld (2013) - arXiv:1307.4764"
    ]
    lines += ["C,1,2,0.4,galaxy,probable,Sonnenfeld (2013) - arXiv:1307.4759"]
    lines += ["D,1,2,-,galaxy,probable,Sonnenfeld (2013) - arXiv:1307.4759"]
    lines += ["E,1,2,0.3,galaxy,probable,More (2011) - arXiv:1109.1821"]
    (tmp_path / "catalog.csv").write_text("\n".join(lines))
    return tmp_path


def test_the_distance_of_shifted_uniform_samples_is_the_shift(populations):
    values = (np.arange(4000) + 0.5) / 4000
    found = populations.distance(values, values + 0.2, rounds=50)
    assert found["value"] == pytest.approx(0.2, abs=1e-3)
    assert 0.17 < found["low"] < found["high"] < 0.25
    assert populations.distance(values, values, rounds=2)["value"] == 0


def test_redshifts_of_sl2s_are_those_that_cite_it(populations, tables):
    assert populations.sl2s(tables / "catalog.csv")["z_lens"].tolist() == [0.58, 0.4]


def test_cuts_keep_what_is_within_all_bounds(populations):
    sample = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array([1.0, 5.0, 1.0])}
    assert populations.cut(sample, a=(0, 2.5), b=(0, 2))["a"].tolist() == [1.0]


def test_signal_to_noise_ratios_follow_the_flux(populations):
    """Ten times fainter sources in images of sky noise alone have a tenth of the ratio."""
    one = np.ones(2)
    theirs = {"z_lens": 0.5 * one, "z_source": 2 * one, "theta_E": one, "x": 0.1 * one, "y": 0 * one, "snr": one}
    theirs |= {"lens_magnitude": 22 * one, "lens_radius": 0.1 * one, "source_radius": 0.2 * one}
    theirs["source_magnitude"] = np.array([25.0, 27.5])
    bright, faint = populations.snr_ratios(populations.scenes("finding-lsst"), theirs)
    assert bright / faint == pytest.approx(10, rel=0.1)


def test_a_comparison_without_lenses_is_refused(populations):
    nothing = populations.Comparison("two", {"z_lens": np.zeros(0)}, {"z_lens": np.ones(3)}, "none")
    with pytest.raises(DataError, match="two: nothing is left"):
        populations.record(nothing)


def test_figures_and_histograms_are_written(populations, tables, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["populations", str(tables), "--count", "300", "--out", str(tables / "out.json"),
                                     "--figure", str(tables / "figure.png")])  # fmt: skip
    monkeypatch.setattr(populations, "ROUNDS", 5)
    populations.main()
    found = json.loads((tables / "out.json").read_text())
    lsst = found["finding-lsst and Collett (2015)"]
    assert lsst["lenses"]["theirs"] == 40
    assert 0.8 < lsst["quantities"]["theta_E"]["ours"]["median"] < 1.1
    assert found["substructure-hst and SLACS"]["quantities"]["theta_E"]["theirs"]["median"] == 1.2
    assert (tables / "figure.png").stat().st_size > 10_000
    assert "finding-euclid" in capsys.readouterr().out
