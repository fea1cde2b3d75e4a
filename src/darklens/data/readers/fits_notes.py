"""Say what a plan leaves out, resamples or guesses of the objects in FITS files, with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from darklens.data.bands import by_wavelength
from darklens.data.readers.fits_plan import (
    SAME_ZERO_POINT,
    Plan,
    both_known,
    counted_shapes,
    has_noise,
    is_same_scale,
    on_same_pixels,
    zero_point_of,
)
from darklens.data.readers.fits_scan import Object
from darklens.data.sizes import OneSize


def notes_of(plan: Plan, scanned: Mapping[Path, Object], *, asked: bool, size: OneSize) -> list[str]:
    """Return sentences on what is left out, resampled or guessed.

    Parameters
    ----------
    plan
        To what objects are brought.
    scanned
        Bands of the objects that were looked at, by their first file.
    asked
        Whether the user chose the bands.
    size
        Size to which images are cropped or padded, if the user chose one.

    Returns
    -------
    list of str
        In the order of bands, fluxes, pixels, noise and sizes.
    """
    return [
        *(_lacking(plan, scanned) if asked else _left_out(plan, scanned)),
        *_zero_points(plan, scanned),
        *_units(plan, scanned),
        *_scales(plan, scanned),
        *_resampled_bands(plan, scanned),
        *_noise(plan, scanned),
        *(_sizes(plan, scanned) if plan.size != size else ()),
    ]


def _lacking(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    if lacking := sum(not set(plan.bands) <= set(found) for found in scanned.values()):
        yield f"{lacking:,} of {len(scanned):,} files lack one of the bands {', '.join(plan.bands)}"


def _left_out(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    counts = Counter(band for found in scanned.values() for band in found)
    for band in by_wavelength([band for band in counts if band not in plan.bands]):
        yield f"band {band} left out: {len(scanned) - counts[band]:,} of {len(scanned):,} files lack it"


def _zero_points(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    """How far zero points differ, and how many are not known."""
    for band in plan.bands:
        file, reference = zero_point_of(band, plan.first, scanned)
        found = [bands[band].zero_point for bands in scanned.values() if band in bands]
        known = [value for value in found if value is not None]
        if reference is not None and max(known) - min(known) > SAME_ZERO_POINT:
            yield (
                f"zero points of {band} from {min(known):.2f} to {max(known):.2f}: fluxes are brought to that of "
                f"{file.name}, {reference:.2f}"
            )
        if known and len(known) < len(found):
            unknown = len(found) - len(known)
            yield f"zero point of {band} unknown in {unknown:,} of {len(found):,} files: left as they are"


def _units(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    units = Counter(found[band].unit for found in scanned.values() for band in plan.bands if band in found)
    if len(units) > 1:
        said = ", ".join(f"{unit or 'not said'} ({count:,})" for unit, count in units.most_common())
        yield f"units of images differ: {said}; left as they are"


def _scales(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    common, first = plan.pixel_scale, plan.bands[0]
    if common is None:
        return
    scales = [bands[first].scale for bands in scanned.values() if first in bands]
    known = [scale for scale in scales if scale is not None]
    if others := [scale for scale in known if not is_same_scale(scale, common)]:
        low, high = min(others), max(others)
        listed = f"{low:.4g}″" if low == high else f"{low:.4g}″ to {high:.4g}″"
        yield (
            f"{len(others):,} of {len(scales):,} files with pixels of {listed}: resampled to {common:.4g}″, which most have"
        )
    if len(known) < len(scales):
        yield f"pixel scale unknown in {len(scales) - len(known):,} of {len(scales):,} files: taken for {common:.4g}″"


def _resampled_bands(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    """Bands with pixels of their own."""
    first = plan.bands[0]
    for band in plan.bands[1:]:
        pairs = [(bands[first], bands[band]) for bands in scanned.values() if {first, band} <= set(bands)]
        if moved := [pair for pair in pairs if not on_same_pixels(*pair)]:
            guessed = any(not both_known(*pair) for pair in moved)
            how = ", taken to show the same field, as there is no WCS" if guessed else ""
            count = "" if len(moved) == len(pairs) else f" in {len(moved):,} of {len(pairs):,} objects"
            where = "" if guessed else ", where its WCS differs"
            yield f"band {band} resampled to the pixels of {first}{count}{how}{where}"


def _noise(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    having = [has_noise(found, plan.bands) for found in scanned.values()]
    if any(having) and not all(having):
        yield f"noise maps of {sum(having):,} of {len(having):,} objects: not used, as others lack them"


def _sizes(plan: Plan, scanned: Mapping[Path, Object]) -> Iterator[str]:
    side, counts = plan.size.side, counted_shapes(plan, scanned)
    assert side is not None
    cropped = sum(count for shape, count in counts.items() if max(shape) > side)
    padded = sum(count for shape, count in counts.items() if min(shape) < side)
    yield (
        f"images of {len(counts)} sizes brought to {side}×{side} pixels: {cropped:,} cropped, {padded:,} padded; "
        "--crop or --pad chooses another"
    )
