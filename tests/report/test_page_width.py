"""Pages fit a window of 420 pixels, a telephone held upright: nothing runs out of them to the right."""

import html
import json
import re
import shutil
import subprocess
from importlib import resources

import pytest

from darklens.report.leaderboard import Leaderboard, write_leaderboard
from darklens.report.page import titles, write_report
from darklens.tasks.classify import Classify
from darklens.workflows.evaluate import evaluate_run

WIDTHS = (420, 800)
TEMPLATES = resources.files("darklens.report") / "templates"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def pages(run, mass_run, test_set, tmp_path_factory):
    """The report of a run, a comparison of two, and a leaderboard of three recipes."""
    out = tmp_path_factory.mktemp("pages")
    evaluate_run(run, test_set)
    evaluate_run(mass_run, test_set)
    evaluation = json.loads((run / "evaluations" / "test" / "evaluation.json").read_text())
    rows = [
        {
            "name": name, "recipe": f"substructure/{name}", "description": "A network with a line on what it is.",
            "parameters": parameters, "images_seen": 368_640, "seconds": 5400.0, "training_images_per_second": 68.0,
            "seconds_to_goal": None, "inference_images_per_second": 1000.0, "peak_memory_mib": 2000.0, "threads": 1,
            "seeds": 1,
        } | {key: evaluation[key] for key in ("n", "figures")} | {"titles": titles(evaluation), "evaluation": evaluation}
        for name, parameters in (("densenet161-resnet18-ensemble", 37_700_000), ("darklens", 2_200_000), ("vit", 2_300_000))
    ]  # fmt: skip
    pairs = [(a["recipe"], b["recipe"]) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    differences = [
        {"first": a, "second": b, "value": 0.01, "low": 0.0, "high": 0.02, "p": 0.03, "p_holm": 0.09} for a, b in pairs
    ]
    settings = {
        "preset": "model-3-noisy", "data": None, "train_images": 192, "test_images": 96, "budget": "2 epochs", "seed": 0,
        "pretrained": False, "machine": "a machine of 2 cores",
    }  # fmt: skip
    ranking = {"key": "macro_auc", "title": "Macro AUC", "unit": "", "better": "higher", "perfect": 1}
    board = Leaderboard(Classify(class_names=evaluation["classes"]), rows, differences, ranking, settings, {})
    return {
        "report": write_report([run], out / "report.html"),
        "comparison": write_report([run, mass_run], out / "both.html"),
        "leaderboard": write_leaderboard(board, out),
    }


@pytest.mark.skipif(BROWSER is None, reason="no chromium here")
@pytest.mark.parametrize("name", ["report", "comparison", "leaderboard"])
def test_page_is_no_wider_than_the_window(pages, name, tmp_path):
    """In frames of these widths, as a headless browser has no window narrower than 500 pixels."""
    page = html.escape(pages[name].read_text("utf-8"))
    frames = [f'<iframe style="border: 0; width: {w}px; height: 900px" srcdoc="{page}"></iframe>' for w in WIDTHS]
    script = (
        "onload = () => document.title = [...document.querySelectorAll('iframe')].map(frame =>"
        " `${frame.contentDocument.documentElement.scrollWidth} of ${frame.contentWindow.innerWidth}`).join(', ')"
    )
    frame = tmp_path / "frames.html"
    frame.write_text(f"<!doctype html><title></title>{''.join(frames)}<script>{script}</script>", "utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, check=False, timeout=120
    )
    measured = re.findall(r"(\d+) of (\d+)", re.search("<title>(.*?)</title>", done.stdout)[1])
    assert [int(window) for _, window in measured] == list(WIDTHS), done.stderr[-1000:]
    for content, window in measured:
        assert int(content) <= int(window)


def test_rules_that_keep_pages_within_the_window():
    """What a browser shows, where there is none: columns shrink with the window, commands wrap, tables scroll."""
    css = (TEMPLATES / "report.css").read_text("utf-8")
    assert "grid-template-columns: repeat(auto-fit, minmax(min(25rem, 100%), 1fr))" in css
    bare = [float(size) for size in re.findall(r"minmax\(([\d.]+)rem", css)]
    assert all(size <= 12 for size in bare), "wider columns need min(…, 100%)"
    assert re.search(r"^pre \{[^}]*white-space: pre-wrap; overflow-wrap: anywhere;", css, re.MULTILINE)
    assert re.search(r"^\.scroll \{ overflow-x: auto;", css, re.MULTILINE)
    for name in ("report.html", "leaderboard.html"):
        page = (TEMPLATES / name).read_text("utf-8")
        assert page.count("<table") == page.count('<div class="scroll"><table')
