"""Failures of a user's own parts carry their name; others stay as they are."""

import pytest

from darklens.errors import DataError, UserCodeError
from darklens.usercode import load_function, named_failures


def test_what_a_part_of_ones_own_ends_with_is_named(tmp_path):
    (tmp_path / "own.py").write_text("class Part:\n    def metrics(self):\n        return {}['rmse']\n")
    part = load_function(f"{tmp_path}/own.py:Part")()
    with (
        pytest.raises(UserCodeError, match=r"^metrics of Part: ended with KeyError: 'rmse'$"),
        named_failures(part, "metrics"),
    ):
        part.metrics()
    with pytest.raises(DataError, match="no column"), named_failures(part, "metrics"):
        raise DataError("no column")
    with pytest.raises(IndexError), named_failures(DataError("a part of darklens"), "metrics"):
        raise IndexError
