"""Verbs that make and look at images."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import duration, progress, say, table
from darklens.errors import DarklensError
from darklens.paths import check_absent, check_present


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
    changes = "".join(f"\n    {name}: {change}" for name, change in found.items())
    say(
        f"{loaded.name}: {loaded.description}\n  median change of an image by its substructure:{changes}\n"
        f"  mosaic → {out}",
        f"darklens simulate {preset} --count 30000 --out data/{loaded.name}",
    )


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


def presets() -> None:
    """List the built-in presets."""
    from darklens.simulation.library import list_presets

    table("Presets", ["name", "what it is"], list(list_presets().items()))


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
