"""Verbs that use trained models."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import loading, say, table
from darklens.errors import DarklensError
from darklens.inference.shipped import describe_shipped, model_folder, shipped_models
from darklens.paths import check_absent, check_present
from darklens.progress import progress_bar, working


def evaluate(
    run: Path,
    data: Path,
    name: str | None = None,
    layout: str | None = None,
    catalog: Path | None = None,
    band: str | None = None,
    mask: bool = False,
    seed: int = 0,
    symmetries: bool = False,
    coverage: float = 0.95,
    outliers: Path | None = None,
) -> None:
    """Evaluate a trained run on labelled images that it has not seen.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        data: a folder or file in any layout; of a dataset with splits, its test images.
        name: what to call this evaluation.
        layout: the layout of the data, if it is not to be detected.
        catalog: a table to join by id.
        band: bands to use, with commas between.
        mask: true sets pixels that are nan or infinite to 0.
        seed: of the bootstrap.
        symmetries: true averages over the eight symmetries of the square.
        coverage: what prediction sets promise, which is verified.
        outliers: images of another kind, which the model should flag.
    """
    run = usable_run(run)
    for path in filter(None, (data, outliers)):
        check_present(path)
    check_coverage(coverage)
    with loading():
        from darklens.workflows.evaluate import evaluate_run

    with progress_bar("evaluating") as advance:
        record = evaluate_run(
            run, data, name, layout, catalog, band, mask, seed, symmetries, coverage, outliers, advance
        )
    table(
        f"{run} on {record['n']:,} images",
        ["figure", "value", "95% interval"],
        [(k, f"{f['value']:.4f}", f"{f['low']:.4f} – {f['high']:.4f}") for k, f in record["figures"].items()],
    )
    for note in record["notes"]:
        say(f"note: {note}")
    say(f"→ {run / 'evaluations' / record['name']}", f"darklens report {run} --out report.html")


def predict(
    run: Path,
    paths: list[Path],
    out: Path,
    layout: str | None = None,
    catalog: Path | None = None,
    band: str | None = None,
    mask: bool = False,
    skip: bool = False,
    pixel_scale: float | None = None,
    symmetries: bool = False,
    coverage: float = 0.95,
) -> None:
    """Predict arrays, files, folders or datasets; cutouts of another pixel scale are made to fit.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the table to write, .parquet or .csv.
        layout: the layout of the data, if it is not to be detected.
        catalog: a table to join by id.
        band: bands to use, with commas between.
        mask: true sets pixels that are nan or infinite to 0.
        skip: true leaves out images that cannot be used, and lists them.
        pixel_scale: arcsec, for images that do not say their own.
        symmetries: true averages over the eight symmetries of the square.
        coverage: with which probability a prediction set holds the truth.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise DarklensError(f"{out}: a table ends in .parquet or .csv")
    check_absent(out)
    check_coverage(coverage)
    model_folder(run)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.predict import predict_paths

    with progress_bar("predicting") as advance:
        written = predict_paths(
            run, paths, out, layout, catalog, band, mask, skip, pixel_scale, symmetries, coverage, advance
        )
    for note in written.notes:
        say(f"note: {note}")
    for name, reason in list(written.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"{written.images:,} images, {len(written.skipped):,} skipped → {out}")


def explain(run: Path, paths: list[Path], out: Path = Path("explain.png"), mask: bool = False) -> None:
    """Draw where a model looks: what each pixel of an image adds to its answer.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the picture to draw.
        mask: true sets pixels that are nan or infinite to 0.
    """
    model_folder(run)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.explain import explain_images

    with working("explaining"):
        lines = explain_images(run, paths, out, mask)
    say("\n".join(lines))
    say(f"→ {out}")


def report(runs: list[Path], out: Path = Path("report.html")) -> None:
    """Write one self-contained page of one run, or of several side by side.

    Args:
        out: the page to write; an earlier one is replaced.
    """
    for run in runs:
        check_present(run)
    with loading():
        from darklens.report.page import write_report

    write_report(runs, out)
    say(f"→ {out}")


def models() -> None:
    """List the trained models inside the package."""
    for name, what, figures in describe_shipped():
        say(f"{name}\n  {what}\n  {figures}")
    say(None, "darklens predict MODEL IMAGES… --out predictions.csv")


def usable_run(run: Path) -> Path:
    """A run to write evaluations into: of a model inside the package, a copy in ``runs/``."""
    folder = model_folder(run)
    if folder != shipped_models().get(str(run)):
        return run
    from darklens.workflows.shipped import run_of

    return run_of(str(run), Path("runs") / run)


def check_coverage(coverage: float) -> None:
    """Refuse what is no probability."""
    if not 0 < coverage < 1:
        raise DarklensError(f"--coverage must be between 0 and 1; got {coverage}")
