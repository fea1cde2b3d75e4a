import matplotlib as mpl
import pytest

from darklens.plots.style import colour, style


def test_colours_begin_anew_after_the_last():
    first = [colour(i) for i in range(6)]
    assert first == ["#3b6fb6", "#d1495b", "#2e9e78", "#b8860b", "#7a5195", "#5f6b76"]
    assert [colour(i) for i in range(6, 13)] == [*first, first[0]]


def test_style_holds_within_its_block_only():
    before = mpl.rcParams["axes.spines.top"], mpl.rcParams["font.size"]
    with style() as plt:
        assert plt.rcParams["axes.spines.top"] is False
        assert plt.rcParams["font.size"] == 9
        assert mpl.get_backend().lower() == "agg"
    assert (mpl.rcParams["axes.spines.top"], mpl.rcParams["font.size"]) == before
    with pytest.raises(ZeroDivisionError), style():
        _ = 1 / 0
    assert mpl.rcParams["font.size"] == before[1]
