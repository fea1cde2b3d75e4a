"""Pairs for super-resolution: the sharper image, blurred and binned, is the other one."""

import numpy as np
import polars as pl
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom

from darklens.cli import main
from darklens.data.dataset import read_dataset
from darklens.data.synthesis import simulate_dataset
from darklens.errors import PresetError
from darklens.physics.psf import SIGMA_PER_FWHM
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame
from darklens.simulation.pairs import seen_by, sharper

SCENES = {
    "name": "scenes", "description": "for tests", "pixels": 48, "pixel_scale": 0.168, "supersampling": 4,
    "detection_band": "i", "rules": {"theta_E": [0.6, 3]}, "classes": {"lens": {"objects": "lens"}},
    "bands": {
        "g": {"filter": "hsc2017-g", "zero_point": 27, "psf_fwhm": {"uniform": [0.7, 0.9]}, "depth": 26.5, "gain": 700},
        "i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.6, "depth": 25.9, "gain": 1000, "pixel_scale": 0.336},
    },
}  # fmt: skip


def binned(images, factor):
    n, bands, height, width = images.shape
    return images.reshape(n, bands, height // factor, factor, width // factor, factor).sum((3, 5))


@pytest.mark.parametrize("factor", [2, 4])
def test_a_sharper_image_blurred_and_binned_is_the_other(factor):
    preset = load_preset("fair-euclid")
    target = sharper(preset, factor)
    simulator = Simulator(preset, seed=3)
    rows = simulator.catalog(6)
    image = simulator.render(rows, noise=False, dtype=torch.float64).numpy()
    fine = Simulator(target.preset, seed=3).render(rows, noise=False, dtype=torch.float64).numpy()
    assert fine.shape == (6, 1, preset.pixels * factor, preset.pixels * factor)
    telescope = preset.instrument
    missing = telescope.psf_fwhm * np.sqrt(1 - factor**-2) * SIGMA_PER_FWHM / (telescope.pixel_scale / factor)
    degraded = binned(gaussian_filter(fine, (0, 0, missing, missing), mode="nearest"), factor)
    assert np.abs(degraded - image).max() < 0.02 * image.max()
    assert np.abs(degraded[..., ::-1] - image).max() > 0.2 * image.max()
    plain = binned(fine, factor)
    assert np.abs(plain - image).max() > 0.05 * image.max(), "it is sharper"


def test_scenes_are_seen_sharper_in_every_band():
    preset = load_preset(SCENES)
    target = sharper(preset, 2)
    simulator = Simulator(preset, seed=3)
    columns = from_frame(simulator.catalog(8).with_columns(artefacts=pl.lit("")))
    image = simulator.renderer.images(columns, 3, noise=False).numpy()
    rows = target.rows(columns)
    np.testing.assert_allclose(rows["psf_fwhm_g"], columns["psf_fwhm_g"] / 2)
    np.testing.assert_array_equal(rows["theta_E"], columns["theta_E"])
    fine = Simulator(target.preset, seed=3).renderer.images(rows, 3, noise=False).numpy()
    for band, name in enumerate("gi"):
        for i in range(8):
            missing = columns[f"psf_fwhm_{name}"][i] * np.sqrt(3 / 4) * SIGMA_PER_FWHM / 0.084
            degraded = binned(gaussian_filter(fine[i : i + 1, band : band + 1], (0, 0, missing, missing)), 2)[0, 0]
            assert np.abs(degraded - image[i, band])[4:-4, 4:-4].max() < 0.03 * image[i, band].max()
    assert target.preset.bands["i"].pixel_scale == pytest.approx(0.168)


def test_pairs_are_written_and_an_interrupted_simulation_ends_with_the_same_bytes(tmp_path, monkeypatch):
    from darklens.data import synthesis

    monkeypatch.setattr(synthesis, "CHECKPOINT", 64)
    preset = load_preset("model-3-noisy")
    target = sharper(preset, 2)
    whole = read_dataset(simulate_dataset(preset, 130, 5, out=tmp_path / "whole", target=target))
    assert whole.images.shape == (130, 1, 64, 64)
    assert whole.targets.shape == (130, 1, 128, 128)
    assert whole.info.notes[-1] == "targets.npy: the same without noise, by model-3-noisy x2, on pixels of 0.04″"
    plain = read_dataset(simulate_dataset(preset, 130, 5, out=tmp_path / "plain"))
    np.testing.assert_array_equal(np.asarray(whole.images), np.asarray(plain.images))
    assert plain.targets is None

    class Killed(Exception):
        pass

    def stop(done, total):
        raise Killed

    with pytest.raises(Killed):
        simulate_dataset(preset, 130, 5, out=tmp_path / "killed", target=target, progress=stop)
    assert (tmp_path / "killed.partial" / "targets.npy").is_file()
    again = simulate_dataset(preset, 130, 5, out=tmp_path / "killed", target=target)
    for name in ("images.npy", "targets.npy", "catalog.parquet"):
        assert (again / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_noise_of_targets_is_its_own(tmp_path):
    preset = load_preset("fair-euclid")
    target = sharper(preset, 2)
    noisy, clean = (
        read_dataset(simulate_dataset(preset, 64, 5, out=tmp_path / name, target=target, noisy_targets=name == "noisy"))
        for name in ("noisy", "clean")
    )
    noise = np.asarray(noisy.targets) - np.asarray(clean.targets)
    expected = Simulator(preset, seed=5).render(clean.catalog, noise=False).numpy()
    other = np.asarray(noisy.images) - expected
    assert noise.std() > 0
    assert abs(np.corrcoef(noise[:, :, :64, :64].ravel(), other.ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise.reshape(64, -1)[:, : 64 * 64].ravel(), other.ravel())[0, 1]) < 0.02


def test_another_instrument_sees_the_same_field():
    euclid, hubble = load_preset("fair-euclid"), load_preset("fair-hst")
    target = seen_by(euclid, hubble)
    field = euclid.pixels * euclid.instrument.pixel_scale
    assert target.preset.pixels * hubble.instrument.pixel_scale == pytest.approx(field)
    rows = Simulator(euclid, seed=1).catalog(3)
    fine = Simulator(target.preset, seed=1).render(rows, noise=False).numpy()
    coarse = Simulator(euclid, seed=1).render(rows, noise=False).numpy()
    seeing = euclid.instrument.psf_fwhm * SIGMA_PER_FWHM / hubble.instrument.pixel_scale
    for ours, theirs in zip(fine[:, 0], coarse[:, 0], strict=True):
        same = zoom(gaussian_filter(ours, seeing), 64 / target.preset.pixels, order=1, grid_mode=True, mode="nearest")
        assert np.corrcoef(same.ravel(), theirs.ravel())[0, 1] > 0.97
        assert np.corrcoef(same[::-1].ravel(), theirs.ravel())[0, 1] < 0.9


@pytest.mark.parametrize("factor", [0, 1, 9])
def test_factors_out_of_range(factor):
    with pytest.raises(PresetError, match=f"pixels can be 2 to 8 times finer; got {factor}"):
        sharper(load_preset("model-1"), factor)


def test_what_has_no_sharper_telescope(tmp_path):
    with pytest.raises(PresetError, match="of presets of scenes, give a number"):
        seen_by(load_preset("finding-hsc"), load_preset("fair-hst"))
    with pytest.raises(PresetError, match=r"the field of model-1 is 93\.75 pixels of fair-hst"):
        seen_by(load_preset("model-1"), load_preset("fair-hst"))
    kernel = np.zeros((5, 5))
    kernel[2, 2] = 1
    np.save(tmp_path / "psf.npy", kernel)
    (tmp_path / "mine.yaml").write_text("extends: fair-euclid\ninstrument: {psf_fwhm: 0, psf_file: psf.npy}\n")
    with pytest.raises(PresetError, match=r"has its point-spread function in .*psf\.npy, which cannot be made finer"):
        sharper(load_preset(tmp_path / "mine.yaml"), 2)


def test_pairs_on_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["simulate", "model-3-noisy", "--count", "4", "--out", "pairs", "--pairs", "3"])
    said = " ".join(capsys.readouterr().out.split())
    assert "4 pairs of model-3-noisy and model-3-noisy x3 → pairs" in said
    assert read_dataset(tmp_path / "pairs").targets.shape == (4, 1, 192, 192)
    with pytest.raises(SystemExit):
        main(["simulate", "model-3-noisy", "--count", "4", "--out", "other", "--pairs", "model-33"])
    assert "model-33" in capsys.readouterr().err
