"""The documentation builds without a warning, and its commands and code run."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from astropy.io import fits
from conftest import TINY
from scipy.stats import ks_2samp

from darklens import usercode
from darklens.cli import main
from darklens.data.dataset import read_dataset
from darklens.inference.model import load_model
from darklens.simulation import ScenePreset, Simulator, load_preset
from darklens.simulation.library import builtin_names
from darklens.training import training_data
from darklens.workflows import preview

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


CHEAPER = "--trainer.epochs 1 --network.widths=[8,8] --network.blocks=[1,1]"


def test_every_column_of_a_simulated_catalogue_is_explained(tmp_path):
    pages = {page: (DOCS / f"{page}.md").read_text("utf-8") for page in ("presets", "scenes")}
    own = []
    for i, text in enumerate(blocks("presets.md", "yaml")):
        own.append(tmp_path / f"own-{i}.yaml")
        own[-1].write_text(text)
    assert {"z_lens", "z_source"} <= set(Simulator(own[0]).catalog(1).columns)
    for preset in map(load_preset, [*builtin_names(), *own]):
        page = pages["scenes" if isinstance(preset, ScenePreset) else "presets"]
        each = re.compile(rf"(magnitude|psf_fwhm|psf_e1|psf_e2|depth|sky_residual)_({'|'.join(preset.band_names)})$")
        columns = {each.sub(r"\1_BAND", name) for name in Simulator(preset).catalog(36).columns}
        assert {name for name in columns if f"`{name}`" not in page} == set(), preset.name
        assert len(columns) > 15


def test_pictures_of_the_pages_are_there_and_small():
    for page in DOCS.glob("*.md"):
        for name in re.findall(r"_static/[\w.-]+", page.read_text("utf-8")):
            size = (DOCS / name).stat().st_size
            assert size < (200_000 if page.stem in ("student", "astronomer", "theorist") else 800_000), name


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """The files of the page on extending, in the current folder."""
    code = [text for text in blocks("extending.md", "python") if text.startswith("# my_models.py")]
    (tmp_path / "my_models.py").write_text("\n".join(code))
    mine = next(text for text in blocks("extending.md", "yaml") if text.startswith("# mine.yaml"))
    (tmp_path / "mine.yaml").write_text(mine)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_sidm_deflection_of_the_docs_is_the_non_singular_isothermal_sphere(examples):
    """Against lenstronomy's ellipsoid without ellipticity, against the formula on the page, and zero at the centre."""
    from lenstronomy.LensModel.lens_model import LensModel

    cored = usercode.load_function("my_models.py:cored")
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 41), np.linspace(-2.4, 2.6, 41))
    tensors = [torch.from_numpy(v) for v in (x, y)]
    for theta_E, r_core in ((0.0004, 0.05), (0.008, 0.05), (0.008, 0.3), (1.0, 0.2)):
        sphere = {"theta_E": theta_E, "e1": 0, "e2": 0, "s_scale": r_core, "center_x": 0.3, "center_y": -0.2}
        expected = LensModel(["NIE"]).alpha(x, y, [sphere])
        actual = torch.stack(cored(*tensors, 0.3, -0.2, theta_E, torch.tensor(r_core, dtype=torch.float64)))
        np.testing.assert_allclose(actual, expected, atol=1e-8)
        r = np.hypot(x - 0.3, y + 0.2)
        size = theta_E * (np.sqrt(r**2 + r_core**2) - r_core) / r
        np.testing.assert_allclose(actual.square().sum(0).sqrt(), size, rtol=1e-9)
    zero = torch.zeros((), dtype=torch.float64)
    assert cored(zero, zero, zero, zero, 0.008, zero + 0.05) == (0, 0)


def test_sidm_as_yaml_and_as_function_draw_the_same_population(examples):
    mine = Simulator("mine.yaml", trust_code=True)
    yaml, function = (s.catalog(256).filter(label="sidm") for s in (mine, Simulator("my_models.py:sidm")))
    for name in ("x", "y", "theta_E", "r_core"):
        a, b = (table[f"subhalo_{name}"].explode().to_numpy() for table in (yaml, function))
        assert ks_2samp(a, b).pvalue > 1e-3, name
        assert min(len(a), len(b)) > 2500
    assert mine.render(yaml[:4]).shape == (4, 1, 64, 64)


def test_class_of_the_page_that_adds_subhalos_and_a_vortex(tmp_path):
    text = next(text for text in blocks("extending.md", "yaml") if text.startswith("# both.yaml"))
    (tmp_path / "both.yaml").write_text(text)
    rows = Simulator(str(tmp_path / "both.yaml")).catalog(8)
    both = rows.filter(label="both")
    assert len(both) == 2
    assert both["subhalo_mass"].list.len().min() > 10
    assert both["vortex_theta_E"].is_not_null().all()


@pytest.mark.usefixtures("not_compiled")
def test_path_of_a_theorist_from_preview_to_a_trained_model(examples, monkeypatch, capsys):
    """The commands of the README, with few images and without compiled kernels, which take a minute to make."""
    monkeypatch.setattr(preview, "IMAGES", 8)
    monkeypatch.setattr(training_data, "VALIDATION_IMAGES", 64)
    monkeypatch.setattr(training_data, "STATISTICS_IMAGES", 128)
    main(["preview", "my_models.py:sidm"])
    said = capsys.readouterr().out
    strengths = {
        name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+) σ \(68%: .* to .* σ; 8 images\)", said)
    }
    assert list(strengths) == ["cdm", "axion", "sidm"]
    assert "no_sub: no change (8 images)" in said
    assert 0.3 * strengths["cdm"] < strengths["sidm"] < 3 * strengths["axion"]
    assert (examples / "preview.png").stat().st_size > 20_000
    main(["simulate", "my_models.py:sidm", "--count", "128", "--out", "data/sidm"])
    stored = read_dataset(examples / "data" / "sidm")
    assert dict(stored.catalog["label"].value_counts().iter_rows())["sidm"] == 32
    assert stored.catalog["subhalo_r_core"].dtype == pl.List(pl.Float64)
    options = TINY | {"trainer.epochs": 1, "trainer.batch_size": 64, "trainer.epoch_images": 64, "trainer.workers": 0}
    options = {key: "null" if value is None else value for key, value in options.items()}
    flags = [f"--{key}={value}" for key, value in options.items()]
    main(["train", "substructure/demo", "--data", "preset:my_models.py:sidm", "--out", "runs/sidm", *flags])
    assert load_model(examples / "runs" / "sidm").classes == ["no_sub", "cdm", "axion", "sidm"]


ELSEWHERE = ("darklens finetune", "darklens train mass/demo", "sidm")
"""Commands of the README that other tests run."""


def test_kind_of_ones_own_on_the_page_of_scenes(tmp_path):
    (code,) = blocks("scenes.md", "python")
    (tmp_path / "my_kinds.py").write_text(code)
    own, kind = blocks("scenes.md", "yaml")
    (tmp_path / "my-survey.yaml").write_text(own)
    (tmp_path / "my-kinds.yaml").write_text(kind)
    rows = Simulator(tmp_path / "my-kinds.yaml", trust_code=True).catalog(40).filter(object="faint")
    assert set(rows["label"]) == {"nonlens"}
    assert rows["galaxy_magnitude_i"].is_between(21.8, 23.2).all()
    survey = load_preset(tmp_path / "my-survey.yaml")
    assert survey.turns.count("star") == 3
    assert survey.rules.theta_E == (0.8, 3.0)
    assert survey.rules.magnitude == 22


def test_table_of_lenses_on_the_page_of_populations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = np.random.default_rng(0).uniform(0.5, 0.9, (20, 25))
    table[:, 1], table[:, 3], table[:, 6:9], table[:, 14:17], table[0, 13] = 2, 250, 19, 24, 0
    np.savetxt("lenses_LSSTc.txt", table)
    (code,) = blocks("populations.md", "python")
    exec(compile(code, "lenspop.py", "exec"), {})
    (own,) = blocks("populations.md", "yaml")
    (tmp_path / "my-lenses.yaml").write_text(own)
    lenses = Simulator("my-lenses.yaml").catalog(36).filter(object="lens")
    assert len(lenses) == 9
    for theta_E, row in lenses.select("theta_E", "population_row").iter_rows():
        assert theta_E == pytest.approx(table[int(row) + 1, 2])


def test_commands_of_the_readme_run_in_a_folder_of_a_user(examples):
    """Class folders, cutouts and a catalogue as the README supposes them, and every command on them in its order."""
    simulator = Simulator("model-3-noisy", seed=3)
    rows = simulator.catalog(180)
    for i, (label, image) in enumerate(zip(rows["label"], simulator.render(rows)[:, 0].numpy(), strict=True)):
        (examples / "dataset" / label).mkdir(parents=True, exist_ok=True)
        np.save(examples / "dataset" / label / f"{i}.npy", image)
        if i < 5:
            (examples / "cutouts").mkdir(exist_ok=True)
            fits.writeto(examples / "cutouts" / f"object{i}.fits", image)
    (examples / "colours").mkdir()  # cutouts of a survey in three bands, in which lenses are sought
    scenes = Simulator("finding-hsc", seed=3)
    for i, image in enumerate(scenes.render(scenes.catalog(5)).numpy()):
        bands = [fits.ImageHDU(pixels, name=name) for name, pixels in zip("GRI", image, strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *bands]).writeto(examples / "colours" / f"object{i}.fits")
    names = [f"object{i}" for i in range(5)]
    pl.DataFrame({"object_id": names, "RA": [150.0 + i for i in range(5)], "DEC": [2.0] * 5}).write_parquet(
        examples / "objects.parquet"
    )
    readme = (DOCS.parent / "README.md").read_text("utf-8")
    console = re.findall(r"^```console\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    commands = [line.removeprefix("$ ").partition(" #")[0].strip() for block in console for line in block.splitlines()]
    assert len(commands) == 14
    for command in commands:
        if command.startswith("darklens find"):
            command = command.replace("cutouts/", "colours/")
        if not any(part in command for part in ELSEWHERE):
            cheaper = CHEAPER if command.startswith("darklens train") else ""
            main(shlex.split(f"{command.removeprefix('darklens ')} {cheaper}"))
    table = pl.read_parquet(examples / "candidates.parquet")
    assert sorted(table["ra"]) == [150.0, 151.0, 152.0, 153.0, 154.0]
    assert (examples / "mine.html").is_file()
    assert sorted(pl.read_parquet(examples / "lenses.parquet")["ra"]) == [150.0, 151.0, 152.0, 153.0, 154.0]
    assert (examples / "lenses.html").is_file()


def test_faq_quotes_errors_that_exist():
    """Every quoted message is in the sources, up to what an error fills in."""
    source = "\n".join(p.read_text("utf-8") for p in (DOCS.parent / "src" / "darklens").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r"^\| `([^`]+)` \|", (DOCS / "faq.md").read_text("utf-8"), re.MULTILINE)
    assert len(quoted) > 12
    for message in quoted:
        parts = [p.strip() for p in re.split(r"…|\d+×\d+|\d+", message) if len(p.strip()) > 3]
        assert all(part in source for part in parts), message


def test_documentation_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "presets.html").is_file()
