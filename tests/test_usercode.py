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
