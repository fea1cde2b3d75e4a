"""Verbs that make and look at images."""

from __future__ import annotations

from pathlib import Path

from darklens.cli.console import duration, loading, say, table
from darklens.commands import command
from darklens.data.options import DataOptions
from darklens.errors import DarklensError
from darklens.paths import check_absent, check_present, check_writable
from darklens.progress import progress_bar, working
from darklens.workflows.options import PaintOptions, split_fractions

MOST = 10**9
"""Images in one dataset."""


def simulate(
    preset: str,
    out: Path,
    *,
    count: int = 3000,
    seed: int = 0,
    noise: bool = True,
    device: str = "cpu",
    pairs: str | None = None,
    noisy_targets: bool = False,
    processes: int = 1,
    dry_run: bool = False,
    trust_code: bool = False,
) -> None:
    """Simulate a dataset folder; an interrupted one goes on where it stopped.

    Args:
        preset: a name (see darklens presets), a YAML file, or a function my_models.py:name.
        out: the folder to make.
        count: number of images, a total over the classes, which take turns.
        seed: image i depends on preset, seed and its block of 64 images alone.
        noise: false renders without noise.
        device: cpu or cuda.
        pairs: make pairs for super-resolution, with targets.npy of the same scenes by a telescope so many times sharper (2
            to 8), or by the instrument of another preset.
        noisy_targets: true gives those noise.
        processes: in how many processes images are made, of one core each; 1 makes them in this one, on a thread for each
            core. The images are the same.
        dry_run: only say how long it takes and how big it gets.
        trust_code: let code run that a preset in YAML names; read it first.
    """
    from darklens.simulation.library import resolve_preset

    resolve_preset(preset)
    check_absent(out)
    if processes < 1:
        raise DarklensError(f"--processes must be at least 1; got {processes}")
    if not 1 <= count <= MOST:
        raise DarklensError(
            f"--count must be at least 1{f' and at most {MOST:,}' if count > MOST else ''}; got {count}"
        )
    with loading():
        import torch

        from darklens.data.synthesis import COMPILE_FROM, estimate, simulate_dataset
        from darklens.simulation import load_preset
        from darklens.simulation.pairs import paired_telescope
        from darklens.workflows.following import training_command

    usable = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device.partition(":")[0] not in usable:
        raise DarklensError(f"--device {device}: not to be had here; there is {', '.join(usable)}")
    loaded = load_preset(preset, trust_code=trust_code)
    target = None if pairs is None else paired_telescope(loaded, pairs, trust_code=trust_code)
    if dry_run:
        with working("timing a few images"):
            guess = estimate(loaded, count, noise)
        faster = "; compiled kernels will be faster" if count >= COMPILE_FROM else ""
        say(f"{count:,} images: {guess.bytes / 2**20:,.0f} MiB, at most {duration(guess.seconds)}{faster}")
        return
    with progress_bar("simulating") as advance:
        simulate_dataset(
            loaded, count, seed, out=out, noise=noise, device=device, target=target, noisy_targets=noisy_targets,
            processes=processes, progress=advance,
        )  # fmt: skip
    if target is not None:
        say(f"{count:,} pairs of {loaded.name} and {target.preset.name} → {out}", command("look", out))
        return
    say(f"{count:,} images of {loaded.name} → {out}", training_command(out, count, loaded.labels, {}))


def preview(preset: str, out: Path = Path("preview.png"), seed: int = 0, trust_code: bool = False) -> None:
    """Draw images of each class of a preset, and what its substructure changes.

    Args:
        preset: a name (see darklens presets), a YAML file, or a function my_models.py:name.
        out: the picture to draw.
        seed: of the images.
        trust_code: let code run that a preset in YAML names; read it first.
    """
    from darklens.simulation.library import resolve_preset

    resolve_preset(preset)
    check_writable(out)
    with loading():
        from darklens.simulation import ScenePreset, load_preset
        from darklens.workflows.following import free_path
        from darklens.workflows.preview import preview as draw
        from darklens.workflows.preview import preview_scenes

    loaded = load_preset(preset, trust_code=trust_code)
    with working("drawing the preset"):
        if isinstance(loaded, ScenePreset):
            shares = " : ".join(f"{count} {label}" for label, count in preview_scenes(loaded, out, seed).items())
            found = f"images in turn: {shares}"
        else:
            measured = draw(loaded, out, seed)
            changes = "".join(f"\n    {name}: {change}" for name, change in measured.items())
            found = f"median change of an image by its substructure, if lens and source were known exactly:{changes}"
            if weak := [name for name, change in measured.items() if change.is_weak]:
                found += (
                    f"\n  ! {', '.join(weak)}: so small a change is hardly seen by a network, which knows neither lens nor "
                    "source; give substructure more mass, or the instrument more exposure, before many images are made"
                )
    say(
        f"{loaded.name}: {loaded.description}\n  {found}\n  mosaic → {out}",
        command("simulate", preset, count=30000, out=free_path(f"data/{loaded.name}"), trust_code=trust_code or None),
    )


def look(path: Path, out: Path = Path("look.png"), options: DataOptions = DataOptions()) -> None:
    """Say what a path holds, and draw a mosaic of it.

    Args:
        path: a folder or file in any layout.
        out: the picture to draw.
    """
    check_present(path)
    check_writable(out)
    with working("looking at the images"):
        from darklens.workflows.look import look as look_at

        findings = look_at(path, options, out)
    say("\n".join([str(path), *(f"  {fact}" for fact in findings.facts), *(f"  ! {w}" for w in findings.warnings)]))
    say(f"  mosaic → {out}", findings.next_command)
    _say_search(findings.search_command)


def import_(
    source: Path,
    out: Path,
    split: str | None = None,
    seed: int = 0,
    options: DataOptions = DataOptions(),
) -> None:
    """Turn any layout into a dataset folder, every pixel checked.

    Args:
        source: a folder or file in any layout of the docs.
        out: the folder to make.
        split: fractions of training, validation and test, such as 0.8,0.1,0.1.
        seed: of the split.
    """
    check_present(source)
    check_absent(out)
    fractions = None if split is None else split_fractions(split)
    with loading():
        from darklens.data.importing import import_data
        from darklens.data.layouts import open_with
        from darklens.workflows.following import after_looking, search_command

    cutouts = open_with(source, options)
    with progress_bar("importing") as advance:
        import_data(cutouts, out, mask=options.mask, fractions=fractions, seed=seed, progress=advance)
    notes = "".join(f"\n  {note}" for note in cutouts.info.notes)
    say(
        f"{len(cutouts):,} images ({cutouts.info.layout}) → {out}{notes}",
        after_looking(out, cutouts, DataOptions(), masked=False),
    )
    _say_search(search_command(out, cutouts, DataOptions(), masked=False))


def _say_search(line: str | None) -> None:
    """Print the command that searches images for lenses, if there is one."""
    if line is not None:
        say(f"to search for lenses: {line}")


def paint(
    cutouts: Path,
    preset: str,
    out: Path,
    *,
    seed: int = 0,
    trust_code: bool = False,
    painting: PaintOptions = PaintOptions(),
    options: DataOptions = DataOptions(),
) -> None:
    """Paint lensed sources over real galaxies: a labelled dataset from your own cutouts.

    Args:
        cutouts: a folder or file in any layout, a galaxy at the centre of each image.
        preset: scenes as your survey sees them (see darklens presets), or a YAML file.
        out: the folder to make; an interrupted painting goes on where it stopped.
        seed: of all random numbers.
        trust_code: let code run that a preset in YAML names; read it first.
    """
    from darklens.simulation.library import resolve_preset

    resolve_preset(preset)
    check_present(cutouts)
    check_absent(out)
    with loading():
        from darklens.data.layouts import open_with
        from darklens.simulation import ScenePreset, load_preset
        from darklens.workflows.following import training_command
        from darklens.workflows.paint import paint as paint_over

    loaded = load_preset(preset, trust_code=trust_code)
    if not isinstance(loaded, ScenePreset):
        raise DarklensError(
            f"preset {preset} has no scenes, whose sources could be painted; take one such as finding-hsc"
        )
    opened = open_with(cutouts, options)
    if options.band_names is not None:
        opened = opened.with_bands(options.band_names)
    done = paint_over(opened, loaded, out, options=painting, seed=seed, mask=options.mask)
    left = "".join(f"\n  {count:,} cutouts left out: {reason}" for reason, count in done.left_out.items())
    notes = "".join(f"\n  {note}" for note in dict.fromkeys([*opened.info.notes, *done.notes]))
    say(
        f"{done.lenses:,} lenses painted, {done.others:,} galaxies as they are → {out}{left}{notes}",
        training_command(out, done.lenses + done.others, ("lens", "nonlens"), {}),
    )


def presets() -> None:
    """List the built-in presets."""
    from darklens.simulation.library import list_presets

    table("Presets", ["name", "what it is"], list(list_presets().items()))
