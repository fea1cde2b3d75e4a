"""Failures of a user's own parts carry file, line and function; others stay as they are."""

import pytest

from darklens.errors import DataError, UserCodeError
from darklens.usercode import load_function, named_failures


def test_what_code_of_ones_own_ends_with_is_named(tmp_path):
    (tmp_path / "own.py").write_text("class Part:\n    def metrics(self, of):\n        return of({})\n")
    part = load_function(f"{tmp_path}/own.py:Part")()
    where = r"^own\.py, line 3, in Part\.metrics: ended with "
    with pytest.raises(UserCodeError, match=where + "TypeError: 'dict' object is not callable$"), named_failures():
        part.metrics(lambda given: given())
    with pytest.raises(UserCodeError, match=where + "KeyError: 'rmse'$"), named_failures():
        part.metrics(lambda given: given["rmse"])
    for error in (DataError("no column"), BrokenPipeError("pipe")):

        def fail(given, error=error):
            raise error

        with pytest.raises(type(error), match=str(error)), named_failures():
            part.metrics(fail)
    with pytest.raises(IndexError), named_failures():
        raise IndexError


def test_files_that_ones_own_code_imports_are_named_as_they_are_not_kept(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_helper.py").write_text("ADD = 1\n\ndef add(x):\n    return x + ADD\n")
    (tmp_path / "my_other.py").write_text("ADD = 1\n")
    (tmp_path / "own.py").write_text(
        "import numpy as np\nimport my_other\nfrom my_helper import add\n\ndef f(x):\n    return add(x)\n"
    )
    (tmp_path / "alone.py").write_text(
        "import json\nimport numpy as np\nfrom darklens.tasks.base import Task\n\ndef f(x):\n    return x\n"
    )
    load_function(f"{tmp_path}/alone.py:f")
    assert caplog.messages == []
    load_function(f"{tmp_path}/own.py:f")
    assert caplog.messages == [
        f"own.py imports {name}, which runs and models do not keep; put it into the same file, or install it"
        for name in ("my_helper.py", "my_other.py")
    ]
