"""What is drawn on an axis, as plain values that a test can compare with literals."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text


def number(value: Any) -> float:
    return round(float(value), 4)


def lines(axis: Axes) -> list[tuple[Any, ...]]:
    """Label, colour, style, width, marker and its size of each line; what matplotlib labels itself has no label."""
    return [
        (
            "" if str(line.get_label()).startswith("_") else line.get_label(),
            to_hex(line.get_color()),
            line.get_linestyle(),
            line.get_linewidth(),
            line.get_marker(),
            line.get_markersize() if line.get_marker() not in ("None", None) else 0,
        )
        for line in axis.lines
    ]


def texts(owner: Axes | Figure) -> list[tuple[Any, ...]]:
    """Text, position, size, colour and alignment of each text."""
    return [text_look(text) for text in owner.texts]


def text_look(text: Text) -> tuple[Any, ...]:
    x, y = text.get_position()
    aligned = text.get_horizontalalignment(), text.get_verticalalignment()
    return text.get_text(), number(x), number(y), text.get_fontsize(), to_hex(text.get_color()), *aligned


def frame(axis: Axes) -> tuple[str, str, str]:
    """Title and labels of the axes."""
    return axis.get_title(), axis.get_xlabel(), axis.get_ylabel()


def limits(axis: Axes) -> list[float]:
    return [number(value) for value in (*axis.get_xlim(), *axis.get_ylim())]


def legend(owner: Axes | Figure) -> dict[str, Any]:
    """Entries of a legend, its title, where it is, and the sizes of its letters."""
    box = owner.get_legend() if isinstance(owner, Axes) else owner.legends[0]
    title = box.get_title()
    return {
        "entries": [text.get_text() for text in box.get_texts()],
        "sizes": sorted({text.get_fontsize() for text in box.get_texts()} | {title.get_fontsize()}),
        "title": title.get_text() if title.get_visible() else "",
        "place": box._loc,
        "columns": box._ncols,
    }


def size(figure: Figure) -> list[float]:
    """Width and height, inches."""
    return [number(side) for side in figure.get_size_inches()]


def box(axis: Axes) -> list[float]:
    """Left, bottom, width and height as fractions of the figure."""
    return [number(value) for value in axis.get_position().bounds]
