"""Scenes from preset and seed: truths, noise, artefacts, kinds of one's own."""

import numpy as np
import polars as pl
import pytest
import torch

from darklens.data import synthesis
from darklens.data.dataset import read_dataset
from darklens.data.synthesis import simulate_dataset
from darklens.errors import DataError, PresetError, UntrustedCodeError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import from_frame, select
from darklens.simulation.library import builtin_names, resolve_preset
from darklens.simulation.scenes.presets import ScenePreset

SEEING = {"log_normal": [0.58, 0.03]}
SCENES = [name for name in builtin_names() if "bands" in resolve_preset(name)]


def content(**changes):
    base = {
        "name": "scenes", "description": "for tests", "pixels": 48, "pixel_scale": 0.168, "detection_band": "i",
        "bands": {
            "g": {"filter": "hsc2017-g", "zero_point": 27, "psf_fwhm": 0.77, "depth": 26.5, "gain": 700},
            "i": {
                "filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": SEEING, "depth": 25.9, "gain": 1000,
            },
        },
        "rules": {"theta_E": [0.6, 3]},
        "classes": {"lens": {"objects": "lens"}, "galaxy": {"objects": "galaxy", "turns": 2}},
    }  # fmt: skip
    return base | changes


@pytest.mark.parametrize("name", SCENES)
def test_every_preset_of_scenes_makes_images(name):
    simulator = Simulator(name, seed=1)
    rows = select(simulator.renderer.draw(1, 0), np.arange(4))
    images = simulator.renderer.images(rows, 1, noise=True)
    assert images.shape == (4, *simulator.preset.shape)
    assert images.isfinite().all()
    assert len(simulator.preset.zero_points) == len(simulator.preset.band_names)


def test_an_image_depends_on_preset_seed_and_block_alone():
    simulator = Simulator(content(), seed=4)
    whole, rows = simulator.block(1)
    part, chosen = simulator.block(1, chosen=np.array([3, 40]))
    assert torch.equal(whole[[3, 40]], part)
    assert chosen["theta_E"][0] == pytest.approx(rows["theta_E"][3], nan_ok=True)
    table = simulator.catalog(64, start=64)
    again = simulator.render(table[[3, 40]])
    assert torch.equal(whole[[3, 40]], again)
    other, _ = Simulator(content(), seed=5).block(1)
    assert not torch.allclose(whole[3], other[3])
    renamed, _ = Simulator(content(name="others"), seed=4).block(1)
    assert not torch.allclose(whole[3], renamed[3])
    next_block, _ = simulator.block(2)
    assert not torch.allclose(whole[3], next_block[3])


def test_classes_take_turns_and_are_merged():
    simulator = Simulator(content(), seed=0)
    rows = simulator.renderer.draw(0, 0)
    assert list(rows["object"][:6]).count("lens") == 2
    assert simulator.preset.labels == ["nonlens", "lens"]
    assert set(zip(rows["object"], rows["label"], strict=True)) == {("lens", "lens"), ("galaxy", "nonlens")}
    assert np.isfinite(rows["theta_E"][rows["label"] == "lens"]).all()
    assert np.isnan(rows["theta_E"][rows["label"] == "nonlens"]).all()
    own = content(classes={"a": {"objects": "lens", "label": "strong"}, "b": "galaxy"})
    assert load_preset(own).labels == ["strong", "nonlens"]


def test_a_class_that_is_rarer_than_one_in_a_block_of_images():
    rare = content(classes={"lens": {"objects": "lens", "turns": 1}, "galaxy": {"objects": "galaxy", "turns": 100}})
    catalog = Simulator(rare, seed=0).catalog(303)
    lenses = catalog.filter(pl.col("label") == "lens")
    assert len(lenses) == 3
    assert lenses["theta_E"].is_finite().all()
    assert not catalog.filter(pl.col("label") == "nonlens")["theta_E"].is_finite().any()


def test_noise_is_what_depth_and_gain_make_it():
    simulator = Simulator(content(classes={"empty": {"objects": "empty"}}, faintest_neighbour=18.1), seed=2)
    rows = select(simulator.renderer.draw(2, 0), np.arange(20))
    images = simulator.renderer.images(rows, 2, noise=True)
    expected = simulator.renderer.images(rows, 2, noise=False)
    for i, (band, depth) in enumerate((("g", 26.5), ("i", 25.9))):
        fwhm = rows[f"psf_fwhm_{band}"]
        wanted = 10 ** (-0.4 * (depth - 27)) / 5 / np.sqrt(4 * np.pi) / (fwhm / 2.3548 / 0.168)
        measured = (images - expected)[:, i].flatten(1).std(1).numpy()
        assert measured == pytest.approx(wanted, rel=0.05)
        sigma = simulator.renderer.noise_sigma(rows, expected)[:, i].flatten(1).mean(1).numpy()
        assert measured == pytest.approx(sigma, rel=0.05)


def test_photons_add_to_the_noise_where_it_is_bright():
    simulator = Simulator(content(classes={"galaxy": {"objects": "galaxy"}}), seed=2)
    rows = select(simulator.renderer.draw(2, 0), np.array([5]))
    rows["galaxy_magnitude_i"] = np.array([16.0])
    expected = simulator.renderer.images(rows, 0, noise=False)
    draws = torch.stack([simulator.renderer.images(rows, seed, noise=True) for seed in range(60)])
    bright = expected[0, 1] > 0.5 * expected[0, 1].max()
    ratio = draws[:, 0, 1].std(0)[bright] / simulator.renderer.noise_sigma(rows, expected)[0, 1][bright]
    assert float(ratio.mean()) == pytest.approx(1, abs=0.05)
    assert float(simulator.renderer.noise_sigma(rows, expected)[0, 1].max()) > 3 * float(
        simulator.renderer.noise_sigma(rows, expected)[0, 1].min()
    )


def test_the_sky_that_is_left_and_correlated_noise():
    bands = content()["bands"]
    bands = {name: band | {"noise_correlation": 2.0, "gain": None} for name, band in bands.items()}
    simulator = Simulator(
        content(classes={"empty": "empty"}, faintest_neighbour=18.1, sky_residual=3.0, bands=bands), seed=2
    )
    rows = select(simulator.renderer.draw(2, 0), np.arange(16))
    noise = (simulator.renderer.images(rows, 2, noise=True) - simulator.renderer.images(rows, 2, noise=False))[:, 1]
    sigma = noise.flatten(1).std(1).mean()
    assert float(noise.mean() / sigma) == pytest.approx(3, rel=0.05)
    flat = noise - noise.mean()
    assert float((flat[:, 1:] * flat[:, :-1]).mean() / sigma**2) > 0.5


def test_larger_pixels_of_a_band_are_resampled():
    bands = content()["bands"]
    bands["i"] |= {"pixel_scale": 0.504, "depth": 22.0, "gain": None}
    simulator = Simulator(content(classes={"empty": "empty"}, faintest_neighbour=18.1, bands=bands), seed=2)
    rows = select(simulator.renderer.draw(2, 0), np.arange(8))
    noise = (simulator.renderer.images(rows, 2, noise=True) - simulator.renderer.images(rows, 2, noise=False)).double()
    near = [
        float((each[:, :, 1:] * each[:, :, :-1]).mean() / each.square().mean()) for each in (noise[:, 0], noise[:, 1])
    ]
    assert near[0] < 0.05
    assert near[1] > 0.7
    # Interpolation between large pixels smooths a little.
    blocks = noise[:, 1, 12:36, 12:36].reshape(8, 8, 3, 8, 3).sum((2, 4))
    fwhm = rows["psf_fwhm_i"].mean()
    wanted = 3 * 10 ** (-0.4 * (22.0 - 27)) / 5 / np.sqrt(4 * np.pi) / (fwhm / 2.3548 / 0.168)
    assert 0.65 < float(blocks.std()) / wanted < 1
    bright = Simulator(content(classes={"galaxy": "galaxy"}, bands=bands), seed=2)
    rows = select(bright.renderer.draw(2, 0), np.array([1]))
    rows["galaxy_magnitude_i"] = np.array([14.0])
    seen, expected = (bright.renderer.images(rows, 2, noise=each)[0, 1] for each in (True, False))
    assert float(seen.sum() / expected.sum()) == pytest.approx(1, rel=5e-3)


@pytest.mark.parametrize("name", ["satellite", "cosmic_rays", "bleeding", "edge", "missing_band"])
def test_what_detectors_do_is_done_and_said(name):
    kind = {"empty": "empty"}
    plain = Simulator(content(classes=kind), seed=3)
    spoiled = Simulator(content(classes=kind, artefacts={name: 1.0}), seed=3)
    rows = spoiled.renderer.draw(3, 0)
    assert set(rows["artefacts"]) == {name}
    rows = select(rows, np.arange(6))
    images, clean = (
        spoiled.renderer.images(rows | {"artefacts": np.array(names)}, 3, noise=True)
        for names in ([name] * 6, [""] * 6)
    )
    for i in range(6):
        changed = (images[i] != clean[i]).float()
        share = float(changed.mean())
        if name == "missing_band":
            assert changed.flatten(1).all(1).sum() == 1
            assert images[i][changed.bool()].abs().max() == 0
        elif name == "edge":
            assert 0.03 < share < 0.4
            assert images[i][changed.bool()].abs().max() == 0
        elif name == "bleeding":
            assert 0.005 < share < 0.08
            assert (images[i] - clean[i])[changed.bool()].min() > 0
        else:
            assert share < (0.6 if name == "satellite" else 0.05)
            assert changed.flatten(1).any(1).sum() >= 1
            assert (images[i] - clean[i]).max() > 4 * clean[i].std() * 0.2
    assert set(plain.renderer.draw(3, 0)["artefacts"]) == {""}


def test_a_dataset_of_scenes_keeps_bands_and_truths(tmp_path):
    preset = load_preset(content())
    path = simulate_dataset(preset, 70, 0, out=tmp_path / "set")
    cutouts = read_dataset(path)
    assert cutouts.images.shape == (70, 2, 48, 48)
    assert cutouts.info.bands == ["g", "i"]
    assert cutouts.info.zero_points == [27.0, 27.0]
    assert cutouts.info.classes == ["nonlens", "lens"]
    catalog = cutouts.catalog
    assert catalog["light_x"].dtype == pl.List(pl.Float64)
    assert catalog.filter(label="lens")["source_magnitude_g"].null_count() == 0
    assert catalog.filter(label="nonlens")["source_magnitude_g"].null_count() == len(catalog.filter(label="nonlens"))
    again = Simulator(preset, int(catalog["seed"][0])).render(catalog[[66]])
    assert np.array_equal(again.numpy(), cutouts.images[[66]])


OWN = """
import numpy as np
from darklens.simulation.scenes.objects import Objects


def dwarf(sky, rng, images, *, magnitude=None):
    found = Objects(images, list(sky.preset.bands))
    galaxies = sky.counted(rng, images, 22, 23)
    found.set_galaxy("galaxy", galaxies, np.zeros(images), np.zeros(images))
    return found


def wrong(sky, rng, images):
    return None
"""


def test_a_kind_of_ones_own_runs_if_it_is_trusted(tmp_path):
    (tmp_path / "my_kinds.py").write_text(OWN)
    (tmp_path / "own.yaml").write_text(
        "extends: finding-hsc\nclasses:\n  dwarf: {objects: 'my_kinds.py:dwarf', turns: 3, label: nonlens}\n"
    )
    with pytest.raises(UntrustedCodeError, match=r"my_kinds\.py"):
        load_preset(tmp_path / "own.yaml")
    preset = load_preset(tmp_path / "own.yaml", trust_code=True)
    assert "my_kinds.py" in {path.name for path in preset.files}
    rows = Simulator(preset).renderer.draw(0, 0)
    own = rows["object"] == "dwarf"
    assert own.sum() >= 3
    assert (np.abs(rows["galaxy_magnitude_i"][own] - 22.5) < 1.2).all()
    (tmp_path / "own.yaml").write_text(
        "extends: finding-hsc\nclasses:\n  wrong: {objects: 'my_kinds.py:wrong', label: lens}\n"
    )
    with pytest.raises(PresetError, match=r"classes\.wrong: .*must return Objects of .* images; got None"):
        Simulator(load_preset(tmp_path / "own.yaml", trust_code=True)).renderer.draw(0, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"detection_band": "r"}, "detection_band: no band 'r'; there are g, i"),
        ({"artefacts": {"ghost": 0.1}}, "artefacts: no 'ghost'; there are satellite"),
        ({"artefacts": {"edge": 1.5}}, "artefacts.edge is a probability"),
        ({"z_lens": 6}, "z_lens and z_source are the highest redshifts"),
        ({"rules": {"theta_E": [3, 1]}}, "rules.theta_E: the lower bound must be below"),
        ({"rules": {"theta_E": 3}}, "rules.theta_E: expected the lowest and the highest"),
        ({"rules": {"snr": 3}}, "unknown key rules.snr; did you mean 'arc_snr'"),
        ({"classes": {"own": {"objects": "my_kinds.py:own"}}}, "classes.own: label must be given, lens or nonlens"),
        ({"classes": {"lens": {"objects": "lens", "options": 3}}}, "classes.lens.options: missing, or no keys and values"),
        ({"classes": {"lens": {"objects": "lens", "turns": 0}}}, "classes.lens: turns must be at least 1"),
        ({"pixels": 50, "bands": {"i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.6, "depth": 26,
          "pixel_scale": 0.504}}}, "50 pixels are no whole number of 3 times larger ones"),
        ({"bands": {"i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.6, "depth": 26, "pixel_scale": 0.2}}},
         "bands.i.pixel_scale must be a multiple of the preset's 0.168"),
        ({"bands": {"i": {"filter": "hsc2017-i", "zero_point": 27, "depth": 26}}}, "bands.i: give exactly one of psf_fwhm"),
        ({"bands": {"i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.6}}}, "one of depth, background_rms"),
        ({"bands": {"i": {"filter": "hsc2017-i", "psf_fwhm": 0.6, "depth": 26}}}, "bands.i: zero_point must be given"),
        ({"bands": {"i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.6, "depth": 26, "psf_beta": 0.5}}},
         "bands.i: psf_beta must be above 1"),
    ],
)  # fmt: skip
def test_presets_that_cannot_be_are_refused(changes, text):
    with pytest.raises(PresetError, match=text):
        load_preset(content(**changes))


def test_derivatives_are_refused_and_detached_tensors_make_the_image():
    simulator = Simulator(content())
    columns = from_frame(simulator.catalog(3))
    image = simulator.render(columns, noise=False)
    theta_E = torch.tensor(columns["theta_E"], requires_grad=True)
    with pytest.raises(
        DataError, match=r"no derivatives by any column.*detach the tensors, or take .* such as fair-hst"
    ):
        simulator.render(columns | {"theta_E": theta_E}, noise=False)
    assert torch.equal(simulator.render(columns | {"theta_E": theta_E.detach()}, noise=False), image)


def test_errors_of_use():
    simulator = Simulator(content())
    assert isinstance(simulator.preset, ScenePreset)
    table = simulator.catalog(3)
    with pytest.raises(DataError, match="no column psf_fwhm_g"):
        simulator.render(table.drop("psf_fwhm_g"))
    with pytest.raises(DataError, match="object 'comet' is not a class"):
        simulator.render(table.with_columns(object=pl.lit("comet")))
    with pytest.raises(PresetError, match="of scenes, which have no substructure"):
        simulator.without_substructure(table)
    bad = table.with_columns(galaxy_magnitude_i=pl.lit(float("inf")) * -1)
    with pytest.raises(DataError, match="the flux expected of it is not finite"):
        simulator.render(bad)
    with pytest.raises(PresetError, match="simulated on a CPU; got device meta"):
        Simulator(content(), device="meta")


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (np.ones((4, 4)), "two odd sides"),
        (np.pad(np.ones((1, 1)), ((0, 8), (0, 8))), "its peak is at \\(0, 0\\), not at its centre \\(4, 4\\)"),
        (np.zeros((5, 5)), "sum to more than zero"),
    ],
)
def test_point_spread_functions_in_files(tmp_path, kernel, text):
    np.save(tmp_path / "psf.npy", kernel)
    band = {"filter": "hsc2017-i", "zero_point": 27, "psf_file": str(tmp_path / "psf.npy"), "background_rms": 0.1}
    with pytest.raises(PresetError, match=text):
        Simulator(content(bands={"i": band}))


def test_a_psf_in_a_file_at_a_finer_sampling_is_that_of_its_formula(tmp_path):
    y, x = np.mgrid[-30:31, -30:31] * 0.084
    np.save(tmp_path / "psf.npy", np.exp(-4 * np.log(2) * (x**2 + y**2) / 0.6**2))
    base = {"filter": "hsc2017-i", "zero_point": 27, "background_rms": 0.1}
    kinds = {"galaxy": {"objects": "galaxy"}}
    formula = Simulator(content(bands={"i": base | {"psf_fwhm": 0.6}}, classes=kinds))
    file = base | {"psf_file": str(tmp_path / "psf.npy"), "psf_oversampling": 2}
    from_file = Simulator(content(bands={"i": file}, classes=kinds))
    rows = select(formula.renderer.draw(0, 0), np.arange(3))
    ours, theirs = (each.renderer.images(rows, 0, noise=False) for each in (formula, from_file))
    assert (ours - theirs).abs().max() < 1e-4 * theirs.max()


def own_artefacts(**shares):
    resolved = load_preset("finding-hsc").resolved
    return load_preset(resolved | {"name": "artefacts", "artefacts": shares})


@pytest.mark.parametrize("name", ["edge", "missing_band", "bleeding", "satellite", "cosmic_rays"])
def test_masks_are_where_an_artefact_took_the_data(name):
    """Of the same noise with and without the artefact, pixels differ where the mask is, if they are lost."""
    preset = own_artefacts(**{name: 1.0})
    simulator = Simulator(preset, seed=2)
    images, rows = simulator.block(0)
    clean = simulator.renderer.images(rows | {"artefacts": np.full(64, "")}, 2, noise=True)
    mask = simulator.renderer.without_data(rows, images)
    if name in ("satellite", "cosmic_rays"):
        assert not mask.any()
        assert not preset.loses_pixels
        return
    np.testing.assert_array_equal(mask, (images != clean).numpy())
    assert mask.any((1, 2, 3)).all()


def test_a_simulated_set_has_a_mask_whatever_interrupts_it(tmp_path, monkeypatch):
    preset = own_artefacts(edge=0.2, missing_band=0.2, bleeding=0.2)
    monkeypatch.setattr(synthesis, "CHECKPOINT", 64)

    def stop(done, total):
        raise KeyboardInterrupt

    whole = synthesis.simulate_dataset(preset, 150, 1, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        synthesis.simulate_dataset(preset, 150, 1, out=tmp_path / "again", progress=stop)
    again = synthesis.simulate_dataset(preset, 150, 1, out=tmp_path / "again")
    for name in ("images.npy", "mask.npy"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    mask, images = np.load(whole / "mask.npy"), np.load(whole / "images.npy")
    assert mask.dtype == bool
    assert mask.shape == images.shape
    assert ((images == 0) <= mask).all()
    assert 0.02 < mask.mean() < 0.4
    assert len(read_dataset(whole)) == 150


def test_without_artefacts_that_lose_pixels_there_is_no_mask(tmp_path):
    preset = own_artefacts(satellite=1.0)
    assert not (synthesis.simulate_dataset(preset, 3, 1, out=tmp_path / "set") / "mask.npy").exists()
    lossy = own_artefacts(edge=1.0)
    assert not (synthesis.simulate_dataset(lossy, 3, 1, out=tmp_path / "clean", noise=False) / "mask.npy").exists()
