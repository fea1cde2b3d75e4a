"""Verbs that use trained models."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import loading, say, table
from darklens.commands import command
from darklens.data.options import DataOptions
from darklens.errors import DarklensError
from darklens.inference.shipped import describe_shipped, model_folder, shipped_models
from darklens.paths import check_absent, check_present, check_writable
from darklens.progress import progress_bar, working


def evaluate(
    run: Path,
    data: str,
    name: str | None = None,
    band: str | None = None,
    seed: int = 0,
    symmetries: bool = False,
    coverage: float = 0.95,
    outliers: Path | None = None,
    count: int = 3072,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
) -> None:
    """Evaluate a trained run on labelled images that it has not seen.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        data: a folder or file in any layout (of a dataset with splits, its test images), or preset:NAME for fresh ones.
        name: what to call this evaluation.
        band: bands to use, by name or number, with commas between.
        seed: of the bootstrap.
        symmetries: average over the eight symmetries of the square.
        coverage: what prediction sets promise, which is verified.
        outliers: images of another kind, which the model should flag.
        count: number of images of a preset, a total over the classes.
        trust_code: let code run that the model or a preset in YAML names; read it first.
    """
    run = usable_run(run)
    check_data(data)
    if outliers is not None:
        check_present(outliers)
    check_coverage(coverage)
    if count < 1:
        raise DarklensError(f"--count must be at least 1; got {count}")
    with loading():
        from darklens.workflows.evaluate import evaluate_run

    with progress_bar("evaluating") as advance:
        record = evaluate_run(
            run, data, name, options, band=band, seed=seed, symmetries=symmetries, coverage=coverage, outliers=outliers,
            count=count, trust_code=trust_code, progress=advance,
        )  # fmt: skip
    table(
        f"{run} on {record['n']:,} images",
        ["metric", "value", "95% interval"],
        [(k, f"{f['value']:.4f}", f"{f['low']:.4f} – {f['high']:.4f}") for k, f in record["figures"].items()],
    )
    for note in record["notes"]:
        say(f"note: {note}")
    for warning in record["warnings"]:
        say(f"! {warning}")
    say(f"→ {run / 'evaluations' / record['name']}", command("report", run, out="report.html"))


def predict(
    run: Path,
    paths: list[Path],
    out: Path,
    band: str | None = None,
    skip: bool = False,
    pixel_scale: float | None = None,
    symmetries: bool = False,
    coverage: float = 0.95,
    sort: str | None = None,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
) -> None:
    """Predict arrays, files, folders or datasets; cutouts of another pixel scale are made to fit.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the table to write, .parquet or .csv, with the columns of the catalogue.
        band: bands to use, by name or number, with commas between.
        skip: leave out images that cannot be used, and list them.
        pixel_scale: arcsec, for images that do not say their own.
        symmetries: average over the eight symmetries of the square.
        coverage: with which probability a prediction set holds the truth.
        sort: a column to sort by, the highest first, and images unlike the training images after all others.
        trust_code: let code run that the model names; read it first.
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
            run, paths, out, options, band=band, skip=skip, pixel_scale=pixel_scale, symmetries=symmetries,
            coverage=coverage, sort=sort, trust_code=trust_code, progress=advance,
        )  # fmt: skip
    for note in written.notes:
        say(f"note: {note}")
    for name, reason in list(written.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"{written.images:,} images, {len(written.skipped):,} skipped → {out}")


def explain(
    run: Path,
    paths: list[Path],
    out: Path = Path("explain.png"),
    band: str | None = None,
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
) -> None:
    """Draw where a model looks: what each pixel of an image adds to its answer.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the picture to draw.
        band: bands to use, by name or number, with commas between.
        trust_code: let code run that the model names; read it first.
    """
    model_folder(run)
    check_writable(out)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.explain import explain_images

    with working("explaining"):
        lines, notes = explain_images(run, paths, out, options, band=band, trust_code=trust_code)
    for line in [*lines, *(f"note: {note}" for note in notes)]:
        say(line)
    say(f"→ {out}")


def report(runs: list[Path], out: Path = Path("report.html")) -> None:
    """Write one self-contained page of one run, or of several side by side.

    Args:
        out: the page to write; an earlier one is replaced.
    """
    for run in runs:
        check_present(run)
    check_writable(out)
    with loading():
        from darklens.report.page import write_report

    write_report(runs, out)
    say(f"→ {out}")


def models() -> None:
    """List the trained models inside the package."""
    for name, what, figures in describe_shipped():
        say(f"{name}\n  {what}\n  {figures}")
    say("to use one: darklens predict, its name, your images, --out predictions.csv", "darklens predict --help")


def usable_run(run: Path) -> Path:
    """A run to write evaluations into: of a model inside the package, a copy in ``runs/``."""
    folder = model_folder(run)
    if folder != shipped_models().get(str(run)):
        return run
    from darklens.workflows.shipped import run_of

    return run_of(str(run), Path("runs") / run)


def check_data(data: str) -> None:
    """Refuse a preset or path that does not exist."""
    if data.startswith("preset:"):
        from darklens.simulation.library import resolve_preset

        resolve_preset(data.removeprefix("preset:"))
    else:
        check_present(Path(data))


def check_coverage(coverage: float) -> None:
    """Refuse what is no probability."""
    if not 0 < coverage < 1:
        raise DarklensError(f"--coverage must be between 0 and 1; got {coverage}")
