"""Painting over galaxies as a survey's user does: what is painted, what is not, and what is refused."""

import dataclasses
import json

import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from darklens.cli import main
from darklens.data.dataset import Cutouts, DatasetInfo, read_dataset
from darklens.errors import DarklensError, DataError, PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.scenes.painting import Painter
from darklens.workflows import paint as module
from darklens.workflows.options import PaintOptions
from darklens.workflows.paint import paint

CONTENT = {
    "name": "hosts", "description": "for tests", "pixels": 48, "pixel_scale": 0.168, "detection_band": "i",
    "bands": {
        "g": {"filter": "hsc2017-g", "zero_point": 27, "psf_fwhm": 0.77, "depth": 26.5, "gain": 700},
        "i": {"filter": "hsc2017-i", "zero_point": 27, "psf_fwhm": 0.58, "depth": 25.9, "gain": 1000},
    },
    "rules": {"theta_E": [0.6, 3], "arc_snr": 15}, "classes": {"galaxy": {"objects": "galaxy"}},
}  # fmt: skip
WITHOUT_PHOTONS = CONTENT | {"bands": {name: band | {"gain": None} for name, band in CONTENT["bands"].items()}}
"""Where numbers that differ by rounding are compared: they lead to other photons."""
HOSTS = 40


@pytest.fixture(scope="module")
def preset():
    return load_preset(CONTENT)


@pytest.fixture(scope="module")
def cutouts(preset):
    """Galaxies with redshifts and positions, five of them a degree apart from the others."""
    simulator = Simulator(preset, seed=2)
    columns = simulator.renderer.draw(2, 0)
    columns["artefacts"] = np.full(64, "")
    images = simulator.renderer.images(columns, 2, noise=True).numpy()[:HOSTS]
    catalog = pl.DataFrame({
        "id": [f"obj{i}" for i in range(HOSTS)], "ra": 150 + 0.01 * np.arange(HOSTS), "dec": np.full(HOSTS, 2.0),
        "z_phot": columns["galaxy_z"][:HOSTS], "field": np.arange(HOSTS) % 3,
    })  # fmt: skip
    info = DatasetInfo("hosts", [], ["HSC-G", "HSC-I"], 0.168, [27.0, 27.0], "flux")
    return Cutouts(images, catalog, info)


@pytest.fixture(scope="module")
def painted(cutouts, preset, tmp_path_factory):
    return paint(cutouts, preset, tmp_path_factory.mktemp("paint") / "data", seed=5)


def test_lenses_are_hosts_with_arcs_and_all_others_are_hosts_as_they_are(painted, cutouts, preset):
    data = read_dataset(painted.path)
    rows = data.catalog
    assert data.info.classes == ["nonlens", "lens"]
    assert (painted.lenses, painted.others) == tuple((rows["label"] == label).sum() for label in ("lens", "nonlens"))
    assert abs(painted.lenses - painted.others) <= 1
    assert painted.lenses + painted.others + sum(painted.left_out.values()) == HOSTS
    assert rows["host"].n_unique() == len(rows)
    images, hosts = np.asarray(data.images), cutouts.images[rows["host"].to_numpy()]
    lens = (rows["label"] == "lens").to_numpy()
    np.testing.assert_array_equal(images[~lens], hosts[~lens])
    arcs = images[lens] - hosts[lens]
    assert (arcs.sum((2, 3)) > 0).all()
    columns = {
        name: rows.filter(pl.col("label") == "lens")[name].to_numpy()
        for name in rows.columns
        if name.startswith("source_")
    }
    # Magnified flux of sources, without their clumps, and as far as the frame goes: about as estimated.
    flux = (
        10 ** (-0.4 * (columns["source_magnitude_i"] - 27))
        * rows.filter(pl.col("label") == "lens")["magnification_estimate"].to_numpy()
    )
    assert 0.6 < np.median(arcs[:, 1].sum((1, 2)) / flux) < 2
    # No light of the galaxy is painted once more: the centre within a third of the ring is dark against it.
    yy, xx = np.indices((48, 48))
    wide = np.flatnonzero(rows.filter(pl.col("label") == "lens")["theta_E"].to_numpy() > 1.2)
    for i in wide:
        row = rows.filter(pl.col("label") == "lens").row(int(i), named=True)
        r = np.hypot((xx - 23.5) * 0.168 - row["lens_x"], (yy - 23.5) * 0.168 - row["lens_y"]) / row["theta_E"]
        ring, centre = (arcs[i, 1][(r > low) & (r < high)].mean() for low, high in ((0.7, 1.3), (0, 0.25)))
        assert centre < ring
    assert len(wide)
    assert {"theta_E", "sigma_v", "z_lens", "source_magnitude_g", "galaxy_magnitude_i", "field", "z_phot"} <= set(
        rows.columns
    )
    assert rows.filter(pl.col("label") == "nonlens")["theta_E"].null_count() == painted.others
    np.testing.assert_allclose(rows["z_lens"].drop_nulls(), rows.filter(pl.col("label") == "lens")["z_phot"])
    assert rows["id"].to_list() == [
        f"{host}-painted" if label == "lens" else host
        for host, label in zip(rows["host_id"], rows["label"], strict=True)
    ]
    assert rows["host_id"].to_list() == [f"obj{i}" for i in rows["host"]]
    assert set(rows["split"]) == {"train", "validation", "test"}
    assert not painted.path.with_name("data.hosts").exists()
    sky = Painter(load_preset(CONTENT)).sky
    lenses = rows.filter(pl.col("label") == "lens")
    expected = sky.einstein_radius(*(lenses[name].to_numpy() for name in ("sigma_v", "z_lens", "z_source")))
    np.testing.assert_allclose(lenses["theta_E"], expected, rtol=1e-6)
    assert (lenses["theta_E"] > 0.6).all()


def test_brighter_hosts_bend_more(painted):
    rows = read_dataset(painted.path).catalog.filter(pl.col("label") == "lens")
    order = (
        rows["sigma_v"].rank().to_numpy(),
        (rows["galaxy_magnitude_i"] - 5 * rows["z_lens"].log10()).rank().to_numpy(),
    )
    assert np.corrcoef(*order)[0, 1] < -0.4


def test_mass_follows_the_shape_of_the_light(painted):
    rows = read_dataset(painted.path).catalog.filter(pl.col("label") == "lens")
    for name in ("e1", "e2"):
        assert (rows[name] - rows[f"galaxy_{name}"]).std() < 0.06
        assert np.corrcoef(rows[name], rows[f"galaxy_{name}"])[0, 1] > 0.6


def test_same_seed_same_bytes_and_another_seed_another_painting(painted, cutouts, preset, tmp_path):
    again = paint(cutouts, preset, tmp_path / "again", seed=5)
    other = paint(cutouts, preset, tmp_path / "other", seed=6)
    first, second, third = ((each.path / "images.npy").read_bytes() for each in (painted, again, other))
    assert first == second
    assert first != third
    columns = [read_dataset(each.path).catalog for each in (painted, again, other)]
    assert columns[0].equals(columns[1])
    assert set(columns[0].filter(pl.col("label") == "lens")["host"]) != set(
        columns[2].filter(pl.col("label") == "lens")["host"]
    )


@pytest.mark.parametrize("step", ["measuring", "painting"])
def test_a_painting_that_was_killed_ends_with_the_same_bytes(painted, cutouts, preset, tmp_path, monkeypatch, step):
    monkeypatch.setattr(module, "BLOCK", 16)
    whole = paint(cutouts, preset, tmp_path / "whole", seed=5)
    calls = []
    name = {"measuring": "_measured", "painting": "images"}[step]
    real = getattr(module._Job, name)

    def killed(self, *given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(module._Job, name, killed)
        with pytest.raises(KeyboardInterrupt):
            paint(cutouts, preset, tmp_path / "killed", seed=5)
    assert not (tmp_path / "killed").exists()
    with pytest.raises(DataError, match="left by a run with other settings"):
        paint(cutouts, preset, tmp_path / "killed", seed=6)
    counted = []
    monkeypatch.setattr(module._Job, name, lambda self, *given: counted.append(1) or real(self, *given))
    paint(cutouts, preset, tmp_path / "killed", seed=5)
    assert len(counted) < (3 if step == "measuring" else -(-(whole.lenses + whole.others) // 16))
    for file in ("images.npy", "catalog.parquet"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def with_info(cutouts, **changes):
    return dataclasses.replace(cutouts, info=dataclasses.replace(cutouts.info, **changes))


def test_units_of_the_cutouts_do_not_matter(cutouts, tmp_path):
    """The same galaxies in units a hundred times smaller, and their bands in the other order."""
    preset = load_preset(WITHOUT_PHOTONS)
    scaled = dataclasses.replace(cutouts, images=cutouts.images[:, ::-1] * np.float32(100))
    scaled = with_info(scaled, bands=["i", "g"], zero_points=[32.0, 32.0])
    other = paint(scaled, preset, tmp_path / "scaled", seed=5)
    painted = paint(cutouts, preset, tmp_path / "plain", seed=5)
    ours, theirs = (read_dataset(each.path) for each in (painted, other))
    assert theirs.info.bands == ["g", "i"]
    assert theirs.catalog["id"].to_list() == ours.catalog["id"].to_list()
    np.testing.assert_allclose(np.asarray(theirs.images), 100 * np.asarray(ours.images), rtol=1e-3, atol=0.02)
    given = paint(
        with_info(scaled, zero_points=[None, None]),
        preset,
        tmp_path / "given",
        options=PaintOptions(zero_points="32"),
        seed=5,
    )
    np.testing.assert_array_equal(np.load(given.path / "images.npy"), np.asarray(theirs.images))


def test_hosts_are_on_one_side_of_the_split(cutouts, preset, tmp_path):
    twice = dataclasses.replace(
        cutouts, catalog=cutouts.catalog.with_columns(dec=pl.Series([2.0, 2.0 + 1 / 3600] * (HOSTS // 2)))
    )
    done = paint(twice, preset, tmp_path / "both", options=PaintOptions(both=True, split="0.5,0.25,0.25"), seed=1)
    rows = read_dataset(done.path).catalog
    assert done.lenses == done.others == len(rows) // 2
    assert (rows.group_by("host").agg(pl.col("label").n_unique() == 2)["label"]).all()
    assert (rows.group_by("host").agg(pl.col("split").n_unique() == 1)["split"]).all()
    assert rows["id"].n_unique() == len(rows)
    near = dataclasses.replace(
        cutouts, catalog=cutouts.catalog.with_columns(ra=pl.Series(150 + 0.01 * (np.arange(HOSTS) // 2)))
    )
    once = paint(near, preset, tmp_path / "once", seed=1)
    places = read_dataset(once.path).catalog["ra"]
    assert places.n_unique() == len(places), "two cutouts of one galaxy give one image"


def test_known_lenses_bad_pixels_and_bad_hosts_are_left_out_and_counted(cutouts, preset, tmp_path):
    images = cutouts.images.copy()
    images[0] = np.nan
    images[1, 0, 3, 3] = np.inf
    images[2] = np.random.default_rng(0).normal(0, 0.1, images[2].shape)
    known = cutouts.catalog[4:6].select(pl.col("ra") + 1 / 3600, "dec")
    known.write_csv(tmp_path / "known.csv")
    labelled = cutouts.catalog.with_columns(label=pl.Series(["galaxy"] * 7 + ["Lens"] + ["galaxy"] * (HOSTS - 8)))
    given = Cutouts(images, labelled, cutouts.info)
    options = PaintOptions(known_lenses=tmp_path / "known.csv")
    done = paint(given, preset, tmp_path / "a", options=options, seed=1)
    assert done.left_out["a known lens"] == 3
    assert done.left_out["pixels that are nan or infinite (--mask true uses such images)"] == 2
    assert done.left_out["no galaxy at the centre"] >= 1
    used = set(read_dataset(done.path).catalog["host"])
    assert not used & {0, 1, 2, 4, 5, 7}
    masked = paint(given, preset, tmp_path / "b", options=options, seed=1, mask=True)
    assert "pixels that are nan or infinite (--mask true uses such images)" not in masked.left_out
    assert masked.left_out["no pixel is finite"] == 1
    rows = read_dataset(masked.path)
    assert np.isfinite(np.asarray(rows.images)).all()
    if 1 in rows.catalog["host"]:
        place = rows.catalog["host"].to_list().index(1)
        assert rows.images[np.array([place])][0, 0, 3, 3] == 0


def test_point_spread_functions_of_the_cutouts_are_used_and_kept(cutouts, tmp_path):
    preset = load_preset(WITHOUT_PHOTONS)
    axis = np.arange(-12, 13)
    r2 = axis[:, None] ** 2 + axis**2
    narrow, wide = (np.exp(-r2 / 2 / s**2) for s in (1.0, 3.0))

    def psf_of(kernels):
        return lambda row: {"HSC-G": kernels[0], "HSC-I": kernels[1]}

    peaks = {}
    for name, kernels in {"narrow": (narrow, narrow), "wide": (wide, 7 * wide)}.items():
        own = dataclasses.replace(cutouts, psf=psf_of(kernels))
        done = paint(own, preset, tmp_path / name, seed=1)
        data = read_dataset(done.path)
        lens = (data.catalog["label"] == "lens").to_numpy()
        arcs = np.asarray(data.images)[lens] - cutouts.images[data.catalog["host"].to_numpy()[lens]]
        peaks[name] = np.median(arcs[:, 1].max((1, 2)))
        assert data.psf(0)["HSC-I"].shape == (25, 25)
        assert not any("drawn from the seeing" in note for note in done.notes)
    assert peaks["narrow"] > 1.3 * peaks["wide"]
    np.save(tmp_path / "wide.npy", wide)
    file = paint(cutouts, preset, tmp_path / "file", options=PaintOptions(psf=tmp_path / "wide.npy"), seed=1)
    assert read_dataset(file.path).psf(0)["HSC-I"].sum() == pytest.approx(1, rel=1e-4)
    given, own = (np.load(folder / "images.npy") for folder in (file.path, tmp_path / "wide"))
    np.testing.assert_allclose(given, own, rtol=1e-5, atol=1e-5)
    bad = dataclasses.replace(
        cutouts, psf=lambda row: {"HSC-G": narrow, "HSC-I": np.roll(narrow, 3, 0)} if row < 9 else {"HSC-I": wide}
    )
    with pytest.raises(
        DataError, match=r"0 can be hosts \(31 × no point-spread function of band HSC-G, 9 × .* its peak is at"
    ):
        paint(bad, preset, tmp_path / "bad", seed=1)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"pixel_scale": None}, {}, "the pixel scale is not known; --pixel_scale gives it"),
        ({"zero_points": [27.0, None]}, {}, "no zero point of band HSC-I; --zero_points gives them"),
        ({"zero_points": []}, {}, "no zero point of band HSC-G, HSC-I"),
        ({}, {"zero_points": "27,x"}, "--zero_points takes one number, or one for each of HSC-G, HSC-I; got '27,x'"),
        ({}, {"zero_points": "27,27,27"}, "--zero_points takes one number"),
        ({"bands": ["VIS", "NIR_H"]}, {}, "has the bands VIS, NIR_H, none of which is one of preset hosts: g, i"),
        ({"bands": ["g", "u"]}, {}, "preset hosts says by its band i what is seen; the images have g"),
        ({}, {"count": 41}, r"41 images are asked for, and \d\d can be made: of 40 cutouts, "),
        ({"bands": ["IMAGE1", "VIS"]}, {}, "--bands chooses those of images without names, in the preset's order"),
        ({}, {"redshift": "zz"}, "no column 'zz'"),
        ({}, {"redshift": "ra"}, "column ra: no redshift is between 0 and 5"),
        ({}, {"split": "1,0,0"}, "split fractions must be above 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_painted_is_refused_with_the_way_out(cutouts, preset, tmp_path, changes, options, message):
    with pytest.raises(DarklensError, match=message):
        paint(with_info(cutouts, **changes), preset, tmp_path / "out", options=PaintOptions(**options))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_images_that_are_not_square_and_files_that_are_no_psf(cutouts, preset, tmp_path):
    oblong = dataclasses.replace(cutouts, images=cutouts.images[..., :40])
    with pytest.raises(DataError, match=r"images must be square; .* --crop cuts them"):
        paint(oblong, preset, tmp_path / "out")
    np.save(tmp_path / "even.npy", np.ones((4, 4)))
    with pytest.raises(DataError, match="a PSF needs two odd sides"):
        paint(cutouts, preset, tmp_path / "out", options=PaintOptions(psf=tmp_path / "even.npy"))
    header = fits.Header({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -0.05 / 3600, "CDELT2": 0.05 / 3600})
    kernel = np.zeros((5, 5))
    kernel[2, 2] = 1
    fits.writeto(tmp_path / "fine.fits", kernel, header)
    with pytest.raises(DataError, match=r"its pixels are 0\.05″ wide, and those of the images 0\.168″"):
        paint(cutouts, preset, tmp_path / "out", options=PaintOptions(psf=tmp_path / "fine.fits"))
    without = dataclasses.replace(cutouts, catalog=cutouts.catalog.select("id"))
    cutouts.catalog.write_csv(tmp_path / "lenses.csv")
    with pytest.raises(DataError, match="no columns ra and dec, by which known lenses could be found"):
        paint(without, preset, tmp_path / "out", options=PaintOptions(known_lenses=tmp_path / "lenses.csv"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"share": 0.0}, "--share must be above 0 and below 1"),
        ({"count": 1}, "--count must be at least 2"),
        ({"both": True, "share": 0.3}, "leave --share out"),
        ({"split": "0.5,0.5"}, "--split takes three numbers"),
    ],
)
def test_options_that_make_no_sense(given, message):
    with pytest.raises(DarklensError, match=message):
        PaintOptions(**given)


def test_share_and_count_are_kept(cutouts, preset, tmp_path):
    done = paint(cutouts, preset, tmp_path / "a", options=PaintOptions(count=12, share=0.25), seed=1)
    assert (done.lenses, done.others) == (3, 9)


def test_redshifts_without_a_column_are_drawn_and_said(cutouts, preset, tmp_path):
    without = dataclasses.replace(cutouts, catalog=cutouts.catalog.drop("z_phot"))
    done = paint(without, preset, tmp_path / "a", seed=1)
    assert any("redshifts are drawn by the magnitudes" in note for note in done.notes)
    rows = read_dataset(done.path).catalog.filter(pl.col("label") == "lens")
    truth = cutouts.catalog["z_phot"].to_numpy()[rows["host"].to_numpy()]
    assert np.median(np.abs(rows["z_lens"].to_numpy() - truth)) < 0.15


def test_cutouts_of_a_user_on_the_command_line(cutouts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cutouts"
    folder.mkdir()
    for i, image in enumerate(cutouts.images):
        hdus = [fits.PrimaryHDU()]
        for name, band in zip(("HSC-G", "HSC-I"), image, strict=True):
            header = fits.Header({
                "EXTNAME": name, "MAGZERO": 27.0, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 24.5,
                "CRPIX2": 24.5,
                "CRVAL1": 150 + 0.01 * i, "CRVAL2": 2.0, "CDELT1": -0.168 / 3600, "CDELT2": 0.168 / 3600,
            })  # fmt: skip
            hdus.append(fits.ImageHDU(band.astype(np.float32), header))
        fits.HDUList(hdus).writeto(folder / f"obj{i}.fits")
    (tmp_path / "mine.yaml").write_text(json.dumps(CONTENT | {"extends": "finding-hsc"}))
    main(["paint", "cutouts", "--preset", "mine.yaml", "--out", "data", "--seed", "3"])
    said = " ".join(capsys.readouterr().out.split())
    assert "lenses painted, " in said
    assert "galaxies as they are → data" in said
    assert "redshifts are drawn by the magnitudes" in said
    assert "next: darklens train " in said
    data = read_dataset(tmp_path / "data")
    assert data.info.zero_points == [27.0, 27.0]
    assert data.info.pixel_scale == pytest.approx(0.168, rel=1e-4)
    with pytest.raises(SystemExit):
        main(["paint", "cutouts", "--preset", "model-1", "--out", "other"])
    assert "preset model-1 has no scenes, whose sources could be painted" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(PresetError, match="says by its band"):
        paint(with_info(cutouts, bands=["g", "u"]), load_preset(CONTENT), tmp_path / "x")


def rows_and_images(done):
    data = read_dataset(done.path)
    return data.catalog, np.asarray(data.images), (data.catalog["label"] == "lens").to_numpy()


def killed(cutouts, preset, out, monkeypatch):
    """A painting that ended before the first image was painted."""

    def stop(self, *given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Job, "images", stop)
        with pytest.raises(KeyboardInterrupt):
            paint(cutouts, preset, out, seed=5)


def test_other_images_or_another_catalogue_are_not_painted_with_old_measurements(
    cutouts, preset, tmp_path, monkeypatch
):
    killed(cutouts, preset, tmp_path / "data", monkeypatch)
    changed = dataclasses.replace(cutouts, catalog=cutouts.catalog.with_columns(z_phot=pl.lit(0.2)))
    with pytest.raises(DataError, match="left by a run with other settings"):
        paint(changed, preset, tmp_path / "data", seed=5)
    turned = dataclasses.replace(cutouts, images=cutouts.images[::-1].copy())
    with pytest.raises(DataError, match=r"image obj.* is not the one that was measured"):
        paint(turned, preset, tmp_path / "data", seed=5)
    assert not (tmp_path / "data").exists()


def test_galaxies_are_not_measured_again_for_another_share(cutouts, preset, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="images are asked for"):
        paint(cutouts, preset, tmp_path / "data", options=PaintOptions(count=200), seed=5)
    monkeypatch.setattr(module._Job, "_measured", None)
    done = paint(cutouts, preset, tmp_path / "data", options=PaintOptions(share=0.25), seed=5)
    assert done.lenses < done.others


@pytest.mark.parametrize("how", ["zeros", "noise", "border"])
def test_nothing_is_painted_where_there_is_no_data(cutouts, preset, tmp_path, how):
    images, noise = cutouts.images.copy(), None
    hole = np.zeros((48, 48), bool)
    hole[:, : 23 if how != "border" else 3] = True
    if how == "noise":
        noise = np.full_like(images, 0.05)
        noise[:, :, hole] = np.inf
    else:
        images[:, :, hole] = 0 if how == "zeros" else images[:, :, :1, 0]
    given = dataclasses.replace(cutouts, images=images, noise=noise)
    rows, painted, lens = rows_and_images(paint(given, preset, tmp_path / "data", seed=5))
    hosts = images[rows["host"].to_numpy()]
    np.testing.assert_array_equal(painted[:, :, hole], hosts[:, :, hole])
    assert (np.abs(painted - hosts)[lens].max((1, 2, 3)) > 0).all()


def test_whole_numbers_stay_whole_in_both_classes(cutouts, preset, tmp_path):
    counts = with_info(cutouts, zero_points=[33.0, 33.0])
    counts = dataclasses.replace(
        counts, images=np.rint(np.clip(cutouts.images * 250 + 300, 0, 65535)).astype(np.uint16)
    )
    rows, painted, lens = rows_and_images(paint(counts, preset, tmp_path / "data", seed=5))
    assert (painted == np.rint(painted)).all()
    assert (np.abs(painted - counts.images[rows["host"].to_numpy()])[lens].max((1, 2, 3)) > 1).all()


@pytest.mark.parametrize("labels", [[1.0, 0.0], [True, False], ["1", "0"], ["Lens", "galaxy"], [1, 0]])
def test_labelled_lenses_are_no_hosts(cutouts, preset, tmp_path, labels):
    catalog = cutouts.catalog.with_columns(label=pl.Series([labels[0]] * 4 + [labels[1]] * (HOSTS - 4)))
    done = paint(dataclasses.replace(cutouts, catalog=catalog), preset, tmp_path / "data", seed=5)
    assert done.left_out["a known lens"] == 4


def magnitudes(done):
    rows = read_dataset(done.path).catalog
    return dict(zip(rows["host"], rows["galaxy_magnitude_i"], strict=True))


def test_masked_pixels_and_the_level_of_the_sky_do_not_change_what_is_measured(painted, cutouts, preset, tmp_path):
    usual = magnitudes(painted)
    images = cutouts.images.copy()
    images[:, :, 20:22, 26:28] = np.nan
    masked = magnitudes(
        paint(dataclasses.replace(cutouts, images=images), preset, tmp_path / "masked", seed=5, mask=True)
    )
    bright = magnitudes(
        paint(dataclasses.replace(cutouts, images=cutouts.images + 1000), preset, tmp_path / "bright", seed=5)
    )
    for other in (masked, bright):
        both = sorted(usual.keys() & other.keys())
        assert len(both) > 20
        assert np.median([abs(usual[host] - other[host]) for host in both]) < 0.03
        assert max(abs(usual[host] - other[host]) for host in both) < 0.5


def test_zero_points_are_given_in_the_order_of_the_images(cutouts, preset, tmp_path):
    other = with_info(dataclasses.replace(cutouts, images=cutouts.images[:, ::-1]), bands=["i", "g"], zero_points=[])
    done = paint(other, preset, tmp_path / "data", options=PaintOptions(zero_points="27,29"), seed=5)
    info = read_dataset(done.path).info
    assert (info.bands, info.zero_points) == (["g", "i"], [29.0, 27.0])


def test_bands_without_names_are_taken_in_order_and_said(cutouts, preset, tmp_path):
    done = paint(with_info(cutouts, bands=["IMAGE1", "IMAGE2"]), preset, tmp_path / "data", seed=5)
    assert any("bands IMAGE1, IMAGE2 are taken for g, i" in note for note in done.notes)


def test_columns_of_the_catalogue_keep_apart_from_the_truths(cutouts, preset, tmp_path):
    catalog = cutouts.catalog.with_columns(theta_E=pl.lit(9.0), catalog_theta_E=pl.lit(8.0), reason=pl.lit("mine"))
    rows = read_dataset(
        paint(dataclasses.replace(cutouts, catalog=catalog), preset, tmp_path / "data", seed=5).path
    ).catalog
    assert rows["catalog_theta_E"].unique().to_list() == [8.0]
    assert rows["catalog_catalog_theta_E"].unique().to_list() == [9.0]
    assert (rows["theta_E"].drop_nulls() < 4).all()


def test_a_preset_of_another_survey_is_asked_about(cutouts, preset, tmp_path):
    wider = with_info(cutouts, pixel_scale=0.25)
    done = paint(wider, preset, tmp_path / "data", seed=5)
    assert any("pixels are 0.25″ wide, and those of hosts 0.168″" in note for note in done.notes)
    assert any("--psf gives your own" in note for note in done.notes)


def test_fits_at_their_bound_are_said(cutouts, painted, tmp_path):
    wider = load_preset(
        CONTENT | {"bands": {name: band | {"psf_fwhm": 1.3} for name, band in CONTENT["bands"].items()}}
    )
    done = paint(cutouts, wider, tmp_path / "data", seed=5)
    assert any("hosts were fitted with the steepest profile there is" in note for note in done.notes)
    assert not any("steepest" in note for note in painted.notes)
