"""The page of candidates: one self-contained HTML file with their pictures, the most probable first."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from darklens.plots.pictures import STRETCHES, stretched_pictures
from darklens.report.page import environment, write_page

LARGEST = 256
"""Pixels of a side above which pictures are made smaller."""

QUALITY = 88
"""Of the JPEG pictures, three for each image: on the page they take a quarter of what its pixels would in 16 bits."""

BARS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
"""Lengths of the bar that shows the scale, arcsec."""


@dataclass(frozen=True)
class Candidate:
    """What a page shows of a candidate.

    Attributes
    ----------
    image
        (C, H, W), finite.
    bands
        C names, or none.
    group
        Images of one group have one scale of colours.
    pixel_scale
        Arcsec; None if unknown.
    id, probability
        Its identifier, and the probability that it is a lens.
    position
        Right ascension and declination, degrees; None if unknown.
    outlier_score
        Above 1 for images unlike the training images; None if unknown.
    known_lens, separation
        The name of a known lens here, and its distance in arcsec; None if there is none.
    """

    image: np.ndarray
    bands: Sequence[str]
    group: str
    pixel_scale: float | None
    id: str
    probability: float
    position: tuple[float, float] | None = None
    outlier_score: float | None = None
    known_lens: str | None = None
    separation: float | None = None


def write_mosaic(
    candidates: Sequence[Candidate],
    out: Path,
    *,
    title: str,
    summary: str,
    notes: Sequence[str],
    expected: Sequence[float],
) -> Path:
    """Write the page of candidates.

    Parameters
    ----------
    candidates
        The most probable first.
    out
        The page.
    title
        Its heading.
    summary, notes
        A sentence below it, and others that are folded up.
    expected
        Lenses that are expected among the first 1, 2, … candidates, by their probabilities.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    DataError
        If it cannot be written.
    """
    templates = resources.files("darklens.report") / "templates"
    drawn = _drawn(candidates)
    cards = [
        {
            "rank": rank,
            "candidate": candidate,
            "pictures": pictures,
            "probability": probability_text(candidate.probability),
            "position": position_text(candidate.position),
            "unlike": candidate.outlier_score is not None and candidate.outlier_score > 1,
            "bar": scale_bar(candidate),
        }
        for rank, (candidate, pictures) in enumerate(zip(candidates, drawn, strict=True), 1)
    ]
    steps = [number for number in (10, 20, 50, 100, 200, 500, 1000) if number < len(candidates)]
    page = (
        environment()
        .get_template("mosaic.html")
        .render(
            title=title,
            summary=summary,
            notes=notes,
            cards=cards,
            stretches=STRETCHES,
            css=(templates / "mosaic.css").read_text("utf-8"),
            script=(templates / "mosaic.js").read_text("utf-8"),
            expected=[(number, f"{expected[number - 1]:.3g}") for number in [*steps, len(candidates)] if number],
        )
    )
    return write_page(page, out)


def probability_text(probability: float) -> str:
    """Return a probability with the digits that tell it from 0 and 1: 0.998, 0.87, 0.40, 0.0032."""
    if probability > 0.99:
        return "> 0.9999" if probability > 0.9999 else f"{probability:.4f}".rstrip("0")
    return f"{probability:.2f}" if probability >= 0.1 else f"{probability:.2g}"


def position_text(position: tuple[float, float] | None) -> str:
    """Return a position in degrees, to a fraction of an arcsecond; empty if there is none."""
    return "" if position is None else f"{position[0]:.5f} {position[1]:+.5f}"


def scale_bar(candidate: Candidate) -> dict[str, Any] | None:
    """Return the length (arcsec) and the width (percent of the picture) of a candidate's bar; None without a scale."""
    if not candidate.pixel_scale:
        return None
    side = candidate.pixel_scale * candidate.image.shape[-1]
    fitting = [length for length in BARS if length <= side / 3]
    return {"length": f"{fitting[-1]:g}", "percent": f"{100 * fitting[-1] / side:.2f}"} if fitting else None


def _drawn(candidates: Sequence[Candidate]) -> list[list[str]]:
    """Pictures of each candidate as data addresses, one for each stretch."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, candidate in enumerate(candidates):
        groups.setdefault((candidate.group, tuple(candidate.bands), candidate.image.shape), []).append(place)
    found: list[list[str]] = [[] for _ in candidates]
    for places in groups.values():
        images = np.stack([candidates[place].image for place in places])
        for pictures in stretched_pictures(images, candidates[places[0]].bands).values():
            for place, picture in zip(places, pictures, strict=True):
                found[place].append(_jpeg(picture))
    return found


def _jpeg(picture: np.ndarray) -> str:
    """A picture (H, W, 3) of 8 bits as a data address, with its first row at the bottom, as astronomers draw images."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[::-1]))
    image.thumbnail((LARGEST, LARGEST))
    return jpeg_address(image)


def jpeg_address(image: Any) -> str:
    """Return a picture of Pillow's as a JPEG in a data address."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
