"""The documentation builds without a warning, and its commands and code run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from darklens.simulation import Simulator
from darklens.training.recipe import load_recipe

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_commands_and_code_of_the_pages_run_from_top_to_bottom(tmp_path):
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pages = ("quickstart.md", "presets.md")
    commands = [line[2:] for page in pages for block in blocks(page, "console") for line in block.splitlines()]
    assert len(commands) == 9
    for command in commands:
        done = subprocess.run(
            command.split(), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr[-2000:])
    for name in ("report.html", "look.png", "preview.png", "predictions.csv", "data/imported/images.npy"):
        assert (tmp_path / name).is_file()
    code = "\n".join(blocks("quickstart.md", "python"))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("['no_sub', 'cdm', 'axion']")


def test_own_preset_network_and_recipe_of_the_docs_work(tmp_path, monkeypatch):
    preset, changed, recipe = blocks("extending.md", "yaml")
    (tmp_path / "my_models.py").write_text("\n".join(blocks("extending.md", "python")))
    (tmp_path / "mine.yaml").write_text(preset)
    (tmp_path / "changed.yaml").write_text(changed)
    (tmp_path / "recipe.yaml").write_text(recipe)
    monkeypatch.chdir(tmp_path)
    assert Simulator("mine.yaml").render(Simulator("mine.yaml").catalog(4)).shape == (4, 1, 64, 64)
    assert Simulator("my_models.py:sidm").preset.labels[-1] == "sidm"
    assert load_recipe("changed.yaml").trainer.epochs == 20
    assert load_recipe("recipe.yaml").network.widths == [64, 128, 256]


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
