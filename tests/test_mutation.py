"""The driver of `tests/mutation.py` tells mutants that tests notice from those that end or hold up the process."""

import contextlib

import mutation
import pytest

TESTS = """
import os
import time

mutant = os.environ["MUTANT_UNDER_TEST"]
assert mutant != "fails at import"

def test_that_passes():
    pass

def test_of_the_mutant():
    if mutant == "never ends":
        time.sleep(1000)
    if mutant == "ends the process":
        os._exit(0)
    assert mutant != "is noticed"
"""
NAMES = ["tests/test_it.py::test_that_passes", "tests/test_it.py::test_of_the_mutant"]


@pytest.mark.parametrize(
    ("mutant", "outcome"),
    [
        ("is noticed", "killed"),
        ("changes nothing", "survived"),
        ("fails at import", "killed"),
        ("ends the process", "crashed"),
        ("never ends", "timed out"),
    ],
)
def test_outcome_of_a_mutant(mutant, outcome, tmp_path, monkeypatch):
    monkeypatch.setattr(mutation, "TEST_LIMIT", 0.5)
    (tmp_path / "mutants" / "tests").mkdir(parents=True)
    (tmp_path / "mutants" / "tests" / "test_it.py").write_text(TESTS)
    with contextlib.closing(mutation.Process(tmp_path, ["tests/test_it.py"], mutant)) as process:
        assert process.outcome(mutant, NAMES, dict.fromkeys(NAMES, 0.0)) == outcome
