"""The commands and the code of the pages run, and print what the pages show."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs import CHEAPER, DOCS, blocks

from darklens.cli import main
from darklens.workflows import preview

CHEAP = (
    ("catalog(3000)", "catalog(180)"),
    ("384", "60"),
    ("--count 3000", "--count 192"),
    ("--count 2400", "--count 96"),
    ("--count 768", "--count 48"),
    ("--count 600", "--count 48"),
    ("--trainer.epochs 4", "--trainer.epochs 1"),
    ("train finding/demo", f"train finding/demo {CHEAPER}"),
    ("--trainer.epochs 6", "--trainer.epochs 1"),
    ("--trainer.epochs 3", "--trainer.epochs 1"),
    ("train substructure/demo", f"train substructure/demo {CHEAPER}"),
)
"""What of the pages is changed here, to fewer images, epochs and weights."""


def lines_of(page: str) -> list[str]:
    """Commands of a page; a backslash at the end of a line continues it."""
    whole = "".join(blocks(page, "console")).replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in whole.splitlines()]


def cheap(text: str) -> str:
    for dear, cheaper in CHEAP:
        text = text.replace(dear, cheaper)
    return text


def shape_of(text: str) -> str:
    """Text without its numbers and spacing: what stays the same with other images."""
    return " ".join(re.sub(r"[\d.,]+", "#", text).split())


@pytest.mark.parametrize(
    "page", ["student.md", "astronomer.md", "finding.md", "theorist.md", "quickstart.md", "presets.md"]
)
@pytest.mark.usefixtures("not_compiled")
def test_commands_of_a_page_run_from_top_to_bottom_and_print_what_it_shows(page, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preview, "IMAGES", 8)
    python = [cheap(block) for block in blocks(page, "python")]
    for block in python:
        if name := re.match(r"# (\w+\.py)\n", block):
            Path(name[1]).write_text(block)
    printed = ""
    for command in lines_of(page):
        words = shlex.split(cheap(command))
        if words[0] == "python":
            subprocess.run([sys.executable, *words[1:]], check=True)
        else:
            main(words[1:])
        out, err = capfd.readouterr()
        printed += out + err
        if "--out" in words:
            assert Path(words[words.index("--out") + 1]).exists(), command
    said = ""
    runnable = [block for block in python if not block.startswith("# ")]
    for block in runnable:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        said += done.stdout
    assert not runnable or "'no_sub', 'cdm', 'axion'" in said
    shown = re.findall(r"(?<=\n\n)((?: {4}.*\n)+)", (DOCS / page).read_text("utf-8"))
    for line in "".join(shown).splitlines():
        assert shape_of(line.rstrip(" …")) in shape_of(printed + said), line
