import numpy as np
import pytest
import reference

from darklens.cli import main
from darklens.simulation import Simulator, load_preset
from darklens.workflows import preview as module
from darklens.workflows.preview import IMAGES, Detectability, preview, residuals


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Detectability for two seeds of a preset, and the picture of the first."""
    preset, out = load_preset("model-3-noisy"), tmp_path_factory.mktemp("preview") / "preview.png"
    return preview(preset, out), preview(preset, out.with_name("other.png"), seed=7), out


def test_preview_of_two_seeds_agrees_within_the_printed_spread(found):
    first, second, out = found
    assert out.stat().st_size > 20_000
    assert list(first) == ["no_sub", "cdm", "axion"]
    assert str(first["no_sub"]) == f"no change ({IMAGES} images)"
    for name in ("cdm", "axion"):
        a, b = first[name], second[name]
        assert 5 < a.low < a.median < a.high
        # The standard error of a median is about 1.25 σ / √n, and half of the central 68% range is σ.
        errors = [1.25 * (d.high - d.low) / 2 / d.images**0.5 for d in (a, b)]
        assert abs(a.median - b.median) < 3 * np.hypot(*errors)


def test_detectability_is_that_of_lenstronomys_images(found):
    """Noise-free images by lenstronomy, with substructure and without, and the variance of photons and background."""
    preset = load_preset("model-3-noisy")
    simulator = Simulator(preset)
    catalog = simulator.catalog(IMAGES * 3)
    rows = catalog.filter(label="cdm")[:2]
    measured = residuals(simulator, rows).square().sum((1, 2)).sqrt()
    instrument = preset.instrument
    for row, strength in zip(rows.to_dicts(), measured, strict=True):
        with_it = reference.render(preset, row)
        without = reference.render(preset, row | {"label": "no_sub", "subhalo_x": None})
        seconds = row["exposure_time"]
        variance = without / (seconds * instrument.exposures) + instrument.background(seconds) ** 2
        assert float(strength) == pytest.approx(np.sqrt(((with_it - without) ** 2 / variance).sum()), rel=1e-5)
    strengths = np.sqrt((residuals(simulator, catalog.filter(label="axion")).numpy() ** 2).sum((1, 2)))
    expected = np.sort(strengths)
    axion = found[0]["axion"]
    assert axion.median == pytest.approx((expected[IMAGES // 2 - 1] + expected[IMAGES // 2]) / 2)
    assert (strengths < axion.low).mean() == pytest.approx(0.16, abs=0.02)
    assert (strengths > axion.high).mean() == pytest.approx(0.16, abs=0.02)
    assert axion.images == IMAGES


def test_rounding_is_no_substructure_and_hides_no_weak_class(tmp_path, monkeypatch, capsys):
    """A class at the level of rounding gets no row in the picture; one of a thousandth of a σ does."""
    drawn = []
    real = module.preset_preview
    monkeypatch.setattr(module, "preset_preview", lambda *parts: drawn.append(parts[1]) or real(*parts))
    monkeypatch.setattr(module, "IMAGES", 6)
    halos = "{profile: models.py:f, count: 1, half_width: 0.5, parameters: {theta_E: THETA}}"
    text = "extends: model-3-noisy\nclasses:\n  cdm: {subhalos: TINY}\n  axion: {vortex: null, subhalos: WEAK}\n"
    for word, theta in (("TINY", "1.0e-16"), ("WEAK", "1.0e-5")):
        text = text.replace(word, halos.replace("THETA", theta))
    (tmp_path / "models.py").write_text(
        "from darklens.physics import sis_deflection\n\n"
        "def f(x, y, x0, y0, theta_E):\n    return sis_deflection(x, y, x0, y0, theta_E)\n"
    )
    (tmp_path / "mine.yaml").write_text(text)
    found = preview(load_preset(tmp_path / "mine.yaml", trust_code=True), tmp_path / "preview.png")
    assert found["cdm"] == Detectability(0, 0, 0, 6)
    assert 1e-3 < found["axion"].median < 1
    assert [residual is None for residual in drawn[0]] == [True, True, False]
    assert [found[label].is_weak for label in ("no_sub", "cdm", "axion")] == [False, False, True]
    monkeypatch.chdir(tmp_path)
    main(["preview", "mine.yaml", "--out", "again.png", "--trust_code"])
    assert "! axion: so small a change is hardly seen by a network" in capsys.readouterr().out.replace("\n", " ")
    assert Detectability(9.9, 1, 30, 6).is_weak
    assert not Detectability(10.1, 1, 30, 6).is_weak


def test_scenes_are_drawn_by_class_and_counted_by_label(tmp_path, monkeypatch):
    drawn = {}
    real = module.scene_preview

    def keep(images, names, pixel_scale):
        drawn.update(images=images, names=names)
        return real(images, names, pixel_scale)

    monkeypatch.setattr(module, "scene_preview", keep)
    preset = load_preset("finding-deeplense")
    found = module.preview_scenes(preset, tmp_path / "scenes.png", seed=3)
    assert found == {"nonlens": 2, "lens": 1}
    assert drawn["names"] == ["lens", "nonlens"]
    assert [len(each) for each in drawn["images"]] == [module.SCENES] * 2
    images, rows = Simulator(preset, 3).block(0)
    first = np.flatnonzero(rows["object"] == "lens")[0]
    assert np.array_equal(drawn["images"][0][0], images[first, 0].numpy())
    assert (tmp_path / "scenes.png").stat().st_size > 10_000
