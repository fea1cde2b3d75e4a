"""The verbs: what each takes, checks at once, and hands to the rooms below, which are imported when it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from darklens.cli.console import duration, progress, say, table
from darklens.errors import DarklensError
from darklens.paths import check_absent, check_present, is_helper_process


def simulate(
    preset: str,
    out: Path,
    count: int = 3000,
    seed: int = 0,
    noise: bool = True,
    device: str = "cpu",
    dry_run: bool = False,
) -> None:
    """Simulate a dataset folder; an interrupted one goes on where it stopped.

    Args:
        preset: a name (see darklens presets), a YAML file, or a function my_models.py:name.
        out: the folder to make.
        count: number of images, a total over the classes, which take turns.
        seed: image i depends on preset, seed and its block of 64 images alone.
        noise: false renders without noise.
        device: cpu or cuda.
        dry_run: only say how long it takes and how big it gets.
    """
    from darklens.simulation.library import resolve_preset

    resolve_preset(preset)
    check_absent(out)
    if count < 1:
        raise DarklensError(f"--count must be at least 1; got {count}")
    from darklens.data.synthesis import COMPILE_FROM, estimate, simulate_dataset
    from darklens.simulation import load_preset

    loaded = load_preset(preset)
    if dry_run:
        guess = estimate(loaded, count, noise)
        faster = "; compiled kernels will be faster" if count >= COMPILE_FROM else ""
        say(f"{count:,} images: {guess.bytes / 2**20:,.0f} MiB, at most {duration(guess.seconds)}{faster}")
        return
    with progress("simulating") as advance:
        simulate_dataset(loaded, count, seed, out, noise, device, advance)
    say(f"{count:,} images of {loaded.name} → {out}", f"darklens train substructure/demo --data {out} --out runs/first")


def import_(
    source: Path,
    out: Path,
    layout: str | None = None,
    catalog: Path | None = None,
    split: str | None = None,
    seed: int = 0,
    mask: bool = False,
) -> None:
    """Turn any layout into a dataset folder, every pixel checked.

    Args:
        source: a folder or file in any layout of the docs.
        out: the folder to make.
        layout: its layout, if it is not to be detected.
        catalog: a table to join by id.
        split: fractions of training, validation and test, such as 0.8,0.1,0.1.
        seed: of the split.
        mask: true sets pixels that are nan or infinite to 0.
    """
    check_present(source)
    check_absent(out)
    fractions = _fractions(split)
    from darklens.data.importing import import_data
    from darklens.data.layouts import open_data

    cutouts = open_data(source, layout, catalog)
    with progress("importing") as advance:
        import_data(cutouts, out, mask, fractions, seed, advance)
    notes = "".join(f"\n  {note}" for note in cutouts.info.notes)
    say(f"{len(cutouts):,} images ({cutouts.info.layout}) → {out}{notes}", f"darklens look {out}")


def train(
    recipe: str,
    data: str,
    out: Path,
    seed: int = 0,
    layout: str | None = None,
    catalog: Path | None = None,
    mask: bool = False,
    wandb: str | None = None,
    resume: bool = False,
    dry_run: bool = False,
    **overrides: Any,
) -> None:
    """Train a recipe on a dataset, on your own folder, or on images simulated as it goes.

    Args:
        recipe: a name (see darklens recipes) or a YAML file.
        data: a folder or file in any layout, or preset:NAME.
        out: the run folder to make.
        seed: of weights, order, augmentation and split.
        layout: the layout of the data, if it is not to be detected.
        catalog: a table to join by id.
        mask: true sets pixels that are nan or infinite to 0.
        wandb: a Weights & Biases project to log to as well.
        resume: go on with a run that was interrupted.
        dry_run: only say how long it takes.
    """
    from darklens.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides)
    going_on = resume and (out / "run.json").is_file()
    if not going_on and not is_helper_process():
        _check_new_run(out)
    if data.startswith("preset:"):
        from darklens.simulation.library import resolve_preset

        resolve_preset(data.removeprefix("preset:"))
    else:
        check_present(Path(data))
    from darklens.training.job import Job
    from darklens.training.train import resume as go_on
    from darklens.training.train import train as begin

    job = Job(loaded, data, seed, layout, str(catalog) if catalog else None, mask, wandb)
    if dry_run:
        say(_training_time(job))
        return
    if going_on:
        go_on(out, job)
    else:
        begin(job, out)
    say(None, f"darklens evaluate {out} --data TEST_IMAGES")


def evaluate(
    run: Path,
    data: Path,
    name: str | None = None,
    layout: str | None = None,
    catalog: Path | None = None,
    band: str | None = None,
    mask: bool = False,
    seed: int = 0,
) -> None:
    """Evaluate a trained run on labelled images that it has not seen.

    Args:
        run: a run folder, or a model folder.
        data: a folder or file in any layout; of a dataset with splits, its test images.
        name: what to call this evaluation.
        layout: the layout of the data, if it is not to be detected.
        catalog: a table to join by id.
        band: bands to use, with commas between.
        mask: true sets pixels that are nan or infinite to 0.
        seed: of the bootstrap.
    """
    check_present(run)
    check_present(data)
    from darklens.workflows.evaluate import evaluate_run

    with progress("evaluating") as advance:
        record = evaluate_run(run, data, name, layout, catalog, band, mask, seed, advance)
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
) -> None:
    """Predict arrays, files, folders or datasets; cutouts of another pixel scale are made to fit.

    Args:
        run: a run folder, or a model folder.
        out: the table to write, .parquet or .csv.
        layout: the layout of the data, if it is not to be detected.
        catalog: a table to join by id.
        band: bands to use, with commas between.
        mask: true sets pixels that are nan or infinite to 0.
        skip: true leaves out images that cannot be used, and lists them.
        pixel_scale: arcsec, for images that do not say their own.
    """
    if out.suffix not in (".parquet", ".csv"):
        raise DarklensError(f"{out}: a table ends in .parquet or .csv")
    check_absent(out)
    for path in (run, *paths):
        check_present(path)
    from darklens.workflows.predict import predict_paths

    with progress("predicting") as advance:
        written = predict_paths(run, paths, out, layout, catalog, band, mask, skip, pixel_scale, advance)
    for note in written.notes:
        say(f"note: {note}")
    for name, reason in list(written.skipped.items())[:10]:
        say(f"skipped {name}: {reason}")
    say(f"{written.images:,} images, {len(written.skipped):,} skipped → {out}")


def report(runs: list[Path], out: Path = Path("report.html")) -> None:
    """Write one self-contained page of one run, or of several side by side.

    Args:
        out: the page to write; an earlier one is replaced.
    """
    for run in runs:
        check_present(run)
    from darklens.report.page import write_report

    write_report(runs, out)
    say(f"→ {out}")


def look(path: Path, out: Path = Path("look.png"), layout: str | None = None, catalog: Path | None = None) -> None:
    """Say what a path holds, and draw a mosaic of it.

    Args:
        path: a folder or file in any layout.
        out: the picture to draw.
        layout: its layout, if it is not to be detected.
        catalog: a table to join by id.
    """
    check_present(path)
    from darklens.workflows.look import look as look_at

    findings = look_at(path, layout, catalog, out)
    say("\n".join([str(path), *(f"  {fact}" for fact in findings.facts), *(f"  ! {w}" for w in findings.warnings)]))
    labelled = any(fact.startswith("classes:") for fact in findings.facts)
    after = f"train substructure/demo --data {path} --out runs/first" if labelled else f"predict RUN {path} --out p.csv"
    say(f"  mosaic → {out}", f"darklens {after}")


def preview(preset: str, out: Path = Path("preview.png"), seed: int = 0) -> None:
    """Draw images of each class of a preset, and what its substructure changes.

    Args:
        preset: a name (see darklens presets), a YAML file, or a function my_models.py:name.
        out: the picture to draw.
        seed: of the images.
    """
    from darklens.simulation.library import resolve_preset

    resolve_preset(preset)
    from darklens.simulation import load_preset
    from darklens.workflows.preview import preview as draw

    loaded = load_preset(preset)
    found = draw(loaded, out, seed)
    strengths = [f"{name} {value:.1f} σ" for name, value in found["detectability"].items() if value > 0]
    say(
        f"{loaded.name}: {loaded.description}\n  median change of an image by its substructure: {', '.join(strengths)}\n"
        f"  mosaic → {out}",
        f"darklens simulate {preset} --count 30000 --out data/{loaded.name}",
    )


def presets() -> None:
    """List the built-in presets."""
    from darklens.simulation.library import list_presets

    table("Presets", ["name", "what it is"], list(list_presets().items()))


def recipes() -> None:
    """List the recipes."""
    from darklens.training.recipe import list_recipes

    table("Recipes", ["name", "what it is"], list(list_recipes().items()))


def doctor() -> None:
    """Print versions, devices, threads and disk, to paste into an issue; and what is known to be bad."""
    from darklens.workflows.doctor import diagnose

    facts, problems = diagnose()
    say("\n".join(f"{name:13} {value}" for name, value in facts.items()))
    for problem in problems:
        say(f"! {problem}")
    say("no known problems" if not problems else None)


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> None:
    """Simulate, train, evaluate, predict and report: all of darklens in ten minutes on two cores.

    Args:
        out: the run folder to make.
        seed: of everything.
    """
    check_absent(out)
    from darklens.workflows.demo import run_demo

    run_demo(out, seed)


def _fractions(split: str | None) -> dict[str, float] | None:
    if split is None:
        return None
    try:
        numbers = [float(part) for part in split.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3:
        raise DarklensError(f"--split takes three numbers, such as 0.8,0.1,0.1; got {split!r}")
    return dict(zip(("train", "validation", "test"), numbers, strict=True))


def _check_new_run(out: Path) -> None:
    if (out / "run.json").is_file():
        raise DarklensError(f"{out}: holds a run already; --resume goes on with it, another --out starts a new one")
    check_absent(out)


def _training_time(job: Any) -> str:
    from darklens.workflows.estimate import training_time

    return training_time(job)


VERBS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "simulate": simulate,
    "preview": preview,
    "look": look,
    "import": import_,
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "report": report,
    "presets": presets,
    "recipes": recipes,
    "doctor": doctor,
}
