"""The check of installations covers every verb and every extra, and notices a command that does not work."""

import sys
import tomllib
from pathlib import Path

import pytest
from check import pinned
from environment import CheckError, Environment, Step
from packaging.requirements import Requirement
from steps import PROOFS, core_steps, extra_steps

from darklens.cli.verbs import VERBS

ROOT = Path(__file__).parents[2]


def test_every_verb_but_demo_is_run_with_the_core_alone():
    commands = [step.command for step in core_steps("0.1.0")]
    tried = {command[1] for command in commands if command[0] == "darklens"}
    assert set(VERBS) - tried == {"demo"}


def test_every_extra_of_pyproject_has_a_proof_and_no_proof_lacks_its_extra():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(project["optional-dependencies"]) == set(PROOFS)
    assert all(extra_steps(extra, ROOT) for extra in PROOFS)


def test_extra_without_a_proof_is_an_error_that_says_where_to_add_it():
    with pytest.raises(CheckError, match=r"nothing proves the extra 'new'; add steps to PROOFS in .*steps\.py"):
        extra_steps("new", ROOT)


def test_imports_of_benchmarks_are_tried_also_those_inside_functions():
    (step,) = extra_steps("bench", ROOT)
    code = step.command[-1]
    assert "import jax\n" in code
    assert "from jaxtronomy.LensModel.Profiles.sie import SIE\n" in code
    assert "__future__" not in code
    compile(code, "imports", "exec")


def test_constraints_keep_versions_and_markers_and_drop_hashes():
    lock = (
        "numpy==2.4.6 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"
        "triton==3.8.0 ; sys_platform == 'linux' \\\n    --hash=sha256:22\nsix==1.17.0\n"
    )
    assert pinned(lock) == "numpy==2.4.6\ntriton==3.8.0 ; sys_platform == 'linux'\nsix==1.17.0\n"
    locked = [Requirement(line).name for line in pinned((ROOT / "requirements.lock").read_text("utf-8")).splitlines()]
    assert {"torch", "scikit-learn", "crepes"} <= set(locked)
    assert len(locked) > 150


@pytest.fixture
def environment(tmp_path):
    """An environment whose only program is this Python."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    return Environment("core", tmp_path)


def python(code: str, **proof: str) -> Step:
    return Step(["python", "-c", code], **proof)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (python("raise SystemExit(3)"), "core: python -c ...: ended with exit status 3"),
        (python("print('Traceback (most recent call last)')"), "printed a traceback"),
        (python("print('24 images')", says="30 images"), "did not print '30 images'; it printed:\n24 images"),
        (python("print()", makes="run/*.html"), "did not make run/*.html"),
    ],
)
def test_command_that_does_not_work_is_an_error_that_says_why(environment, step, message):
    with pytest.raises(CheckError) as caught:
        environment.run(step)
    assert message in str(caught.value)


def test_command_that_works_passes_and_sees_nothing_of_the_callers_paths(environment, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    code = "import os; open('made.txt', 'w').write(os.getcwd()); print(os.environ.get('PYTHONPATH'))"
    environment.run(python(code, says="None", makes="made.txt"))
    assert (environment.folder / "made.txt").read_text() == str(environment.folder.resolve())
    assert capsys.readouterr().out.endswith(" s  python -c ...\n")
