"""The demo of a lens finder, on few images and with a small network."""

import polars as pl
import pytest

from darklens.cli import main
from darklens.workflows import demo

RECIPE = (
    "extends: finding/demo\nnetwork: {widths: [8, 8], blocks: [1, 1]}\ntrainer: {batch_size: 16, precision: 32-true}\n"
)


def test_it_goes_from_simulation_to_a_page_of_candidates(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    for name in ("FINDING_TRAIN_IMAGES", "FINDING_TEST_IMAGES", "SURVEY_IMAGES"):
        monkeypatch.setattr(demo, name, 64)
    monkeypatch.setattr(demo, "FINDING_RECIPE", "small.yaml")
    monkeypatch.setattr(demo, "FINDING_EPOCHS", 1)
    monkeypatch.setattr(demo, "PREVIEWED", 20)
    main(["demo", "--task", "finding"])
    made = tmp_path / "runs" / "demo-finding"
    assert {"candidates.csv", "candidates.html", "report.html"} <= {path.name for path in made.iterdir()}
    table = pl.read_csv(made / "candidates.csv")
    true = (table["label"] == "lens").sum()
    said = " ".join(capsys.readouterr().out.split())
    assert len(table) == 20
    assert f"{table['probability'].sum():.3g} lenses are expected, and {true} are there" in said
    with pytest.raises(SystemExit):
        main(["demo", "--task", "finding"])
    assert "runs/demo-finding" in capsys.readouterr().err


def test_demo_of_something_else_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--task", "mass"])
    assert "--task is substructure or finding; got 'mass'" in capsys.readouterr().err
