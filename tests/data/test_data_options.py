"""Options of reading images."""

from pathlib import Path

from darklens.data.options import DataOptions


def test_options_that_differ_from_their_defaults_are_given():
    assert DataOptions().given() == {}
    options = DataOptions(layout="fits", catalog=Path("t.csv"), channels="last", crop=3, pad=3, mask=True)
    assert options.given() == {
        "layout": "fits", "catalog": Path("t.csv"), "channels": "last", "crop": 3, "pad": 3, "mask": True,
    }  # fmt: skip
    assert DataOptions(crop=0).given() == {"crop": 0}
