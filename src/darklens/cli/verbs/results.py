"""Verbs that use trained models."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import loading, say, table
from darklens.commands import command
from darklens.data.options import DataOptions
from darklens.errors import DarklensError
from darklens.inference.shipped import describe_shipped, model_folder, shipped_models, shipped_run
from darklens.paths import check_absent, check_present, check_writable
from darklens.progress import progress_bar, working
from darklens.workflows.options import EmbeddingOptions, EvaluationOptions, Options, PredictionOptions, SearchOptions


def evaluate(
    run: Path,
    data: str,
    evaluation: EvaluationOptions = EvaluationOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
) -> None:
    """Evaluate a trained run on labelled images that it has not seen.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        data: a folder or file in any layout (of a dataset with splits, its test images), or preset:NAME for fresh ones.
        trust_code: let code run that the model or a preset in YAML names; read it first.
    """
    run = usable_run(run)
    check_data(data)
    if evaluation.outliers is not None:
        check_present(evaluation.outliers)
    with loading():
        from darklens.evaluation.bootstrap import range_text
        from darklens.workflows.evaluate import evaluate_run

    with progress_bar("evaluating") as advance:
        record = evaluate_run(run, data, evaluation, options=options, trust_code=trust_code, progress=advance)
    units = {key: described["unit"] for key, described in record["metrics"].items()}
    table(
        f"{run} on {record['n']:,} images",
        ["metric", "value", "95% interval"],
        [(key, f"{f['value']:.4f} {units[key]}".strip(), range_text(f)) for key, f in record["figures"].items()],
    )
    for note in record["notes"]:
        say(f"note: {note}")
    for warning in record["warnings"]:
        say(f"! {warning}")
    trust = trust_code or None
    say(f"→ {run / 'evaluations' / record['name']}", command("report", run, out="report.html", trust_code=trust))


def predict(
    run: Path,
    paths: list[Path],
    out: Path,
    choices: PredictionOptions = PredictionOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
) -> None:
    """Predict arrays, files, folders or datasets; cutouts of another pixel scale are made to fit.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the table to write, .parquet, .csv or .fits, with the columns of the catalogue.
        trust_code: let code run that the model names; read it first.
    """
    check_table(out)
    model_folder(run)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.predict import predict_paths

    with progress_bar("predicting") as advance:
        written = predict_paths(
            run, paths, out, choices=choices, options=options, trust_code=trust_code, progress=advance
        )
    for note in written.notes:
        say(f"note: {note}")
    for name, reason in list(written.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"{written.images:,} images, {len(written.skipped):,} skipped → {out}")


def find(
    paths: list[Path],
    model: Path,
    out: Path,
    search: SearchOptions = SearchOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
) -> None:
    """Search cutouts for lenses: rank them by probability, and draw a page of the most probable ones.

    Args:
        model: a run folder or a model folder of a lens finder.
        out: the list to write, .parquet, .csv or .fits, with the columns of the catalogue.
        trust_code: let code run that the model names; read it first.
    """
    check_table(out)
    model_folder(model)
    for path in paths:
        check_present(path)
    if search.mosaic is not None:
        check_writable(search.mosaic)
    if search.known_lenses not in (None, "false"):
        check_present(Path(str(search.known_lenses)))
    with loading():
        from darklens.workflows.find import find_lenses

    with progress_bar("searching") as advance:
        found = find_lenses(model, paths, out, search=search, options=options, trust_code=trust_code, progress=advance)
    for note in found.notes:
        say(f"note: {note}")
    for name, reason in list(found.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"of the first {found.first:,}, {found.expected:.3g} are expected to be lenses")
    if search.mosaic is not None:
        say(f"→ {search.mosaic}")
    said = "" if found.kept == found.images else f", the first {found.kept:,} kept"
    say(f"{found.images:,} images ranked{said}, {len(found.skipped):,} skipped → {out}")


def embed(
    paths: list[Path],
    model: Path,
    out: Path,
    choices: EmbeddingOptions = EmbeddingOptions(),
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
) -> None:
    """Write the features of images by any trained model, what they tell of labels, and a map of the images.

    Args:
        model: a run folder, a model folder, or the name of a model (see darklens models).
        out: the table to write, .parquet, .csv or .fits; figures go beside it, as .json.
        trust_code: let code run that the model or a preset in YAML names; read it first.
    """
    check_table(out)
    check_absent(out.with_suffix(".json"))
    model_folder(model)
    for path in paths:
        check_data(str(path))
    if choices.page is not None:
        check_writable(choices.page)
    with loading():
        from darklens.evaluation.bootstrap import range_text
        from darklens.workflows.embed import embed_paths

    given = {**options.given(), **choices.given(), "trust_code": trust_code or None}
    line = command("embed", *paths, model=model, out=out, **given)
    with progress_bar("embedding") as advance:
        embedded = embed_paths(
            model, paths, out, choices=choices, options=options, trust_code=trust_code, line=line, progress=advance
        )
    for note in embedded.notes:
        say(f"note: {note}")
    for name, reason in list(embedded.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    figures = {name: {key: each.record() for key, each in of.items()} for name, of in embedded.probes.figures.items()}
    if figures:
        number = sum(embedded.probes.classes.values())
        table(
            f"probes of {number:,} labelled images, cross-validated",
            ["probe", "accuracy", "95% interval", "macro AUC", "95% interval"],
            [
                (name, *(text for each in of.values() for text in (f"{each['value']:.4f}", range_text(each))))
                for name, of in figures.items()
            ],
        )
        say(f"always naming the most frequent class has an accuracy of {embedded.probes.most_frequent:.4f}")
    for like in embedded.likes:
        table(f"nearest to {like.name}", ["id", "distance", "label"], like.lines)
    if choices.page is not None:
        say(f"→ {choices.page}")
    say(
        f"{embedded.images:,} images of {embedded.features:,} features, {embedded.clusters:,} clusters, "
        f"{len(embedded.skipped):,} skipped → {out}, and figures in {embedded.beside}"
    )


def superresolve(
    paths: list[Path],
    model: Path,
    out: Path,
    skip: bool = False,
    options: DataOptions = DataOptions(),
    trust_code: bool = False,
) -> None:
    """Make cutouts finer: FITS with the right coordinates, or arrays, and a page of before and after.

    Args:
        model: a run folder or a model folder of a recipe superresolution/….
        out: the folder to make.
        skip: leave out images that cannot be used, and list them.
        trust_code: let code run that the model names; read it first.
    """
    check_absent(out)
    model_folder(model)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.superresolve import superresolve_paths

    line = command("superresolve", *paths, model=model, out=out, skip=skip or None, **options.given())
    with progress_bar("making images finer") as advance:
        finer = superresolve_paths(
            model, paths, out, skip=skip, options=options, trust_code=trust_code, line=line, progress=advance
        )
    for note in finer.notes:
        say(f"note: {note}")
    for name, reason in list(finer.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"{finer.images:,} images, {len(finer.skipped):,} skipped → {out}, and {out / 'index.html'}")


def explain(
    run: Path,
    paths: list[Path],
    out: Path = Path("explain.png"),
    trust_code: bool = False,
    options: DataOptions = DataOptions(),
    prior: float | None = None,
) -> None:
    """Draw where a model looks: what each pixel of an image adds to its answer.

    Args:
        run: a run folder, a model folder, or the name of a model (see darklens models).
        out: the picture to draw.
        trust_code: let code run that the model names; read it first.
        prior: of a lens finder, the fraction of lenses among all objects that probabilities are for.
    """
    Options().check_prior(prior)
    model_folder(run)
    check_writable(out)
    for path in paths:
        check_present(path)
    with loading():
        from darklens.workflows.explain import explain_images

    with working("explaining"):
        lines, notes = explain_images(run, paths, out, options, trust_code=trust_code, prior=prior)
    for line in [*lines, *(f"note: {note}" for note in notes)]:
        say(line)
    say(f"→ {out}")


def report(
    runs: list[Path], out: Path = Path("report.html"), name: str | None = None, trust_code: bool = False
) -> None:
    """Write one self-contained page of one run, or of several side by side.

    Args:
        out: the page to write; an earlier one is replaced.
        name: of the evaluation that is reported of each run; by default its newest.
        trust_code: let the code of tasks of your own run, which the runs carry; read it first.
    """
    for run in runs:
        check_present(run)
    check_writable(out)
    with loading():
        from darklens.report.page import write_report

    write_report(runs, out, name=name, trust_code=trust_code)
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
    return shipped_run(str(run), Path("runs") / run)


def check_table(out: Path) -> None:
    """Refuse a table of an unknown format, or one that exists."""
    if out.suffix not in (".parquet", ".csv", ".fits"):
        raise DarklensError(f"{out}: a table ends in .parquet, .csv or .fits")
    check_absent(out)


def check_data(data: str) -> None:
    """Refuse a preset or path that does not exist."""
    if data.startswith("preset:"):
        from darklens.simulation.library import resolve_preset

        resolve_preset(data.removeprefix("preset:"))
    else:
        check_present(Path(data))
