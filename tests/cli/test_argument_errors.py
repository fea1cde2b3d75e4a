"""Errors of the command line name arguments as they are typed, with the usage of the verb."""

import pytest

from darklens.cli import main


@pytest.mark.parametrize(
    ("line", "said", "usage"),
    [
        ("find cutouts --out x.csv", "missing: --model", "darklens find PATHS"),
        ("embed cutouts --out x.parquet", "missing: --model", "darklens embed PATHS"),
        ("embed cutouts --model m --out x.parquet --map umap", "--map:", "darklens embed PATHS"),
        ("find", "missing: PATHS, --model, --out", "darklens find PATHS"),
        ("simulate", "missing: PRESET, --out", "darklens simulate PRESET"),
        ("predict a-model", "missing: PATHS, --out", "darklens predict RUN"),
        ("train finding/demo --data d --out o --trainer.epochs many", "--trainer.epochs:", "darklens train RECIPE"),
        ("look d --channels middle", "--channels:", "darklens look PATH"),
    ],
)
def test_arguments_are_named_as_they_are_typed(capsys, line, said, usage):
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2
    assert f"error: {said}" in err
    assert f"usage: {usage}" in err
    assert "Parser key" not in err
    assert f"{line.split()[0]}." not in err
