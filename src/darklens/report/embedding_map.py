"""The page of an embedding: one self-contained HTML file with a map of images, their pictures, and lists of some."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from darklens.evaluation.bootstrap import Interval
from darklens.report.mosaic import jpeg_address
from darklens.report.page import environment, write_page

TILE = 64
"""Pixels of a side of each picture."""
ACROSS = 16
"""Pictures in each row and column of a sheet: one JPEG of 256 pictures is smaller than 256 of them."""
SIDE = 1000
"""Width and height of the map in its own units."""
NAMED = 10
"""Names that have colours of their own, the most frequent; more could not be told apart."""
STEPS = 10
"""Colours of a scale of numbers."""
LIGHT = ["#3b6fb6", "#d1495b", "#2e9e78", "#b8860b", "#7a5195", "#0e8ca3", "#c2571a", "#5a7d1f", "#b0468f", "#5f6b76"]
DARK = ["#7db0f5", "#ff8a93", "#5fcf9d", "#f0c04c", "#c39be0", "#5cc8dc", "#ff9d5c", "#a9cf60", "#f08fd0", "#b3bec9"]
"""Colours of names on a light and on a dark ground."""


@dataclass(frozen=True)
class Colouring:
    """One way to colour the points: by names (N) or by numbers (N,), of which None and nan are drawn pale."""

    title: str
    names: Sequence[str | None] | None = None
    numbers: np.ndarray | None = None


@dataclass(frozen=True)
class Card:
    """An image in a list: its number among the tiles, its identifier, and a text below it."""

    tile: int
    id: str
    text: str


@dataclass(frozen=True)
class Group:
    """A list of images below a title and a sentence, behind the ``picture`` that they are compared with."""

    title: str
    text: str
    cards: Sequence[Card]
    picture: np.ndarray | None = None


@dataclass(frozen=True)
class EmbeddingMap:
    """What the page shows.

    Attributes
    ----------
    title, summary, caveat, notes
        Heading, a sentence below it, what the map does not say, and sentences that are folded up.
    places
        Of the points, (N, 2), in any unit.
    tiles
        A picture for each point, (N, TILE, TILE, 3) of 8 bits.
    texts
        For each point, lines on it; the first is its identifier.
    colourings
        Ways to colour the points, at least one.
    groups
        Lists of images.
    figures, classes, most_frequent
        Of `darklens.evaluation.probes.Probes`.
    """

    title: str
    summary: str
    caveat: str
    notes: Sequence[str]
    places: np.ndarray
    tiles: np.ndarray
    texts: Sequence[Sequence[str]]
    colourings: Sequence[Colouring]
    groups: Sequence[Group]
    figures: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    most_frequent: float = float("nan")


def write_embedding_map(page: EmbeddingMap, out: Path) -> Path:
    """Write the page; return its path.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    templates = resources.files("darklens.report") / "templates"
    modes = [_mode(colouring) for colouring in page.colourings]
    # Ends that are too near to the ground are left out.
    scales = [[to_hex(colormaps["plasma"](x)) for x in np.linspace(*ends, STEPS)] for ends in ((0.0, 0.82), (0.2, 1.0))]
    scaled = _on_the_map(page.places)
    points = [
        {
            "x": f"{x:.1f}",
            "y": f"{y:.1f}",
            "classes": " ".join(f"m{j}-{mode['bins'][n]}" for j, mode in enumerate(modes)),
        }
        for n, (x, y) in enumerate(scaled)
    ]
    data = {"texts": page.texts, "places": np.round(scaled, 1).tolist(), "tile": TILE, "across": ACROSS}
    text = (
        environment()
        .get_template("embedding.html")
        .render(
            page=page,
            side=SIDE,
            modes=modes,
            points=points,
            data=data,
            sheets=_sheets(page.tiles),
            groups=[_drawn(group, page.tiles) for group in page.groups],
            light=[*LIGHT, *scales[0]],
            dark=[*DARK, *scales[1]],
            named=NAMED,
            steps=STEPS,
            css=(templates / "embedding.css").read_text("utf-8"),
            script=(templates / "embedding.js").read_text("utf-8"),
        )
    )
    return write_page(text, out)


def _on_the_map(places: np.ndarray) -> np.ndarray:
    """Places (N, 2) in the map's units, one scale for both axes, y upwards, within a margin."""
    low, high = places.min(0), places.max(0)
    span = max(float((high - low).max()), 1e-12)
    found: np.ndarray = SIDE / 2 + 0.94 * SIDE * (places - (low + high) / 2) / span * np.array([1, -1])
    return found


def _mode(colouring: Colouring) -> dict[str, Any]:
    """The number of a colour for each point, ``none`` without one, and the legend of a colouring."""
    if colouring.names is not None:
        return _named_mode(colouring.title, colouring.names)
    assert colouring.numbers is not None
    values = np.asarray(colouring.numbers, np.float64)
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99]) if len(finite) else (0.0, 1.0)
    share = (np.nan_to_num(values) - low) / (high - low if high > low else 1.0)
    steps = NAMED + np.clip((share * STEPS).astype(int), 0, STEPS - 1)
    bins = [str(step) if known else "none" for step, known in zip(steps, np.isfinite(values), strict=True)]
    return {"title": colouring.title, "bins": bins, "legend": [], "low": f"{low:.3g}", "high": f"{high:.3g}"}


def _named_mode(title: str, names: Sequence[str | None]) -> dict[str, Any]:
    counts = Counter(name for name in names if name)
    chosen = [name for name, _ in counts.most_common(NAMED if len(counts) <= NAMED else NAMED - 1)]
    chosen.sort(key=lambda name: (len(name), name) if name.isdigit() else (0, name))
    numbers = {name: str(number) for number, name in enumerate(chosen)}
    others = sum(counts.values()) - sum(counts[name] for name in chosen)
    legend = [(numbers[name], name, counts[name]) for name in chosen]
    legend += [(str(NAMED - 1), f"{len(counts) - len(chosen)} others", others)] if others else []
    missing = len(names) - sum(counts.values())
    legend += [("none", "none", missing)] if missing else []
    bins = ["none" if not name else numbers.get(name, str(NAMED - 1)) for name in names]
    return {"title": title, "bins": bins, "legend": legend, "low": "", "high": ""}


def _sheets(tiles: np.ndarray) -> list[str]:
    """All pictures (N, TILE, TILE, 3) on sheets of `ACROSS` × `ACROSS`, as data addresses."""
    from PIL import Image

    found = []
    for start in range(0, len(tiles), ACROSS**2):
        sheet = np.zeros((ACROSS**2, TILE, TILE, 3), np.uint8)
        some = tiles[start : start + ACROSS**2]
        sheet[: len(some)] = some
        rows = -(-len(some) // ACROSS)
        grid = sheet.reshape(ACROSS, ACROSS, TILE, TILE, 3).swapaxes(1, 2).reshape(ACROSS * TILE, ACROSS * TILE, 3)
        found.append(jpeg_address(Image.fromarray(grid[: rows * TILE])))
    return found


def _drawn(group: Group, tiles: np.ndarray) -> dict[str, Any]:
    """A list of images with its pictures as data addresses."""
    from PIL import Image

    cards = [{"card": card, "src": jpeg_address(Image.fromarray(tiles[card.tile]))} for card in group.cards]
    picture = None if group.picture is None else jpeg_address(Image.fromarray(np.ascontiguousarray(group.picture)))
    return {"group": group, "cards": cards, "picture": picture}
