"""The next sensible command after a verb, whole and ready to be copied; or what to do where there is none."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from darklens.commands import command
from darklens.data.bands import matching
from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.data.options import DataOptions
from darklens.errors import DarklensError, DataError
from darklens.inference.shipped import shipped_models
from darklens.schema import read_json
from darklens.simulation.library import builtin_names
from darklens.training.recipe import load_recipe
from darklens.usercode import is_reference, references, split_reference

RECIPE, SEARCH = "substructure/demo", "finding/demo"
FEWEST = 20
"""Labelled images below which a training is not suggested."""


def after_looking(path: Path, cutouts: Cutouts, options: DataOptions, masked: bool) -> str:
    """Return the command to train on images, or to predict them where there are no classes to learn.

    Parameters
    ----------
    path
        Where the images are.
    cutouts
        What they are.
    options
        How they were read, which the command repeats.
    masked
        Whether some pixels are nan or infinite, so that ``--mask`` is needed.
    """
    given = replace(options, mask=options.mask or masked).given()
    if (labels := _labels_to_learn(cutouts)) is not None:
        return training_command(path, len(cutouts), labels, given)
    model = nearest_model(cutouts.info, cutouts.images.shape[-1], searching=False)
    if model is None:
        raise DarklensError("this installation has no trained models; install darklens again")
    return command("predict", model, path, out=free_path("predictions.csv"), **_with_bands_of(model, cutouts, given))


def search_command(path: Path, cutouts: Cutouts, options: DataOptions, masked: bool) -> str | None:
    """Return the command that searches images for lenses; None if no shipped finder knows their bands.

    There is none either where images have labels to learn other than that of lenses, such as kinds of dark matter.

    Parameters
    ----------
    path
        Where the images are.
    cutouts
        What they are.
    options
        How they were read, which the command repeats.
    masked
        Whether some pixels are nan or infinite, so that ``--mask`` is needed.
    """
    labels = _labels_to_learn(cutouts)
    model = nearest_model(cutouts.info, cutouts.images.shape[-1], searching=True)
    if model is None or not (labels is None or _are_of_lenses(labels)):
        return None
    given = _with_bands_of(model, cutouts, replace(options, mask=options.mask or masked).given())
    out, page = free_path("candidates.csv"), free_path("candidates.html")
    return command("find", path, model=model, out=out, mosaic=page, **given)


def _labels_to_learn(cutouts: Cutouts) -> set[str] | None:
    """The labels of images that a training can be suggested for: several, on all of at least 20 images."""
    labels = cutouts.catalog["label"] if "label" in cutouts.catalog.columns else None
    if labels is None or labels.null_count() or labels.n_unique() < 2 or len(labels) < FEWEST:
        return None
    return set(labels)


def _are_of_lenses(labels: Collection[str]) -> bool:
    return "lens" in labels and len(labels) == 2


def training_command(path: Path, images: int, labels: Collection[str], given: dict[str, object]) -> str:
    """Return the command that trains the first recipe for images, a tenth of which serve for validation.

    Parameters
    ----------
    path
        Where the images are.
    images
        How many.
    labels
        Those that they have. Where these are ``lens`` and another one, lenses are to be found.
    given
        Options that the command repeats.
    """
    recipe = SEARCH if _are_of_lenses(labels) else RECIPE
    batch = load_recipe(recipe).trainer.batch_size
    fitting = 1 << max(1, int(0.7 * images)).bit_length() - 1
    smaller = {} if fitting >= batch else {"trainer__batch_size": fitting}
    return command("train", recipe, data=path, out=free_path(f"runs/{path.resolve().stem}"), **given, **smaller)


def after_training(run: Path, data: str, options: DataOptions, trust_code: bool = False) -> tuple[str | None, str]:
    """Return the command that evaluates a run on images that it has not seen.

    Where there are none, a sentence says so, and the command keeps some of the data apart.
    """
    from darklens.training.job import read_record

    record = read_record(run)
    trust = trust_code or bool(record.get("code")) or None
    about = record.get("data_description", {})
    if data.startswith("preset:"):
        return None, command("evaluate", run, data=data, trust_code=trust)
    if about.get("test_images"):
        return None, command("evaluate", run, data=data, **options.given(), trust_code=trust)
    if (preset := about.get("source", "").removeprefix("preset:")) in builtin_names():
        return None, command("evaluate", run, data=f"preset:{preset}", trust_code=trust)
    if own := _own_preset(Path(data)):
        return None, command("evaluate", run, data=f"preset:{own}", trust_code=trust)
    apart = command("import", data, out=free_path(f"{data.rstrip('/')}-split"), split="0.8,0.1,0.1", **options.given())
    return f"{data} has no test images; keep some apart, and train on the rest:", apart


def after_adapting(run: Path, target: str, trust_code: bool = False) -> str:
    """Return the command that predicts the target of an adaptation, or evaluates on it where it is simulated."""
    trust = trust_code or None
    if target.startswith("preset:"):
        return command("evaluate", run, data=target, trust_code=trust)
    return command("predict", run, target, out=free_path("predictions.csv"), trust_code=trust)


def _own_preset(dataset: Path) -> str | None:
    """The user's preset that a simulated dataset was made of, as the command line names it; None if it is not found."""
    try:
        preset = read_json(dataset / "dataset.json", DataError).get("preset") or {}
    except DataError:
        return None
    name, here = str(preset.get("name")), f"{Path.cwd()}{os.sep}"
    for own in (f"{name}.yaml", *references(preset.get("classes"))):
        file, function = split_reference(own) if is_reference(own) else (Path(own), name)
        if function == name and file.is_file():
            return own.removeprefix(here)
    return None


def free_path(name: str) -> Path:
    """Return a path of this name where nothing is yet, with a number behind the name if need be."""
    number, path = 1, Path(name)
    while path.exists():
        number += 1
        path = Path(name).with_name(f"{Path(name).stem}-{number}{Path(name).suffix}")
    return path


def nearest_model(info: DatasetInfo, pixels: int, *, searching: bool) -> str | None:
    """Return the shipped model whose images are most like some cutouts; None if there is none for their bands.

    Of those that can be used, the ones that see most bands count; of these the one whose pixel scale is nearest (as a
    ratio), or whose number of pixels is where that does not decide.

    Parameters
    ----------
    info
        Bands and pixel scale (arcsec) of the cutouts.
    pixels
        Their side.
    searching
        Whether the model is to find lenses, or to predict what lenses are like.
    """
    from darklens.inference.model import read_config
    from darklens.tasks.registry import make_task

    def apart(name: str) -> tuple[int, float, float]:
        config = configs[name]
        scales = (config.pixel_scale, info.pixel_scale)
        ratio = abs(math.log(scales[0] / scales[1])) if scales[0] and scales[1] else 0.0
        return -config.channels, ratio, abs(math.log(config.pixels / pixels))

    known = {name: read_config(folder) for name, folder in shipped_models().items()}
    configs = {
        name: config
        for name, config in known.items()
        if (make_task(config.task, name, learned=True).sought is not None) == searching
        and not config.catalog
        and _fits(config.channels, config.bands, info.bands, searching)
    }
    return min(configs, key=apart, default=None)


def _fits(channels: int, own: Sequence[str], bands: Sequence[str], searching: bool) -> bool:
    """Whether a model finds its bands; one of a single band that tells lenses apart takes any."""
    if channels == 1 and not searching:
        return True
    return bool(own) and matching(own, bands) is not None


def _with_bands_of(model: str, cutouts: Cutouts, given: dict[str, object]) -> dict[str, object]:
    """Options of reading with the bands of a shipped model in its order, where the user chose bands at all."""
    from darklens.inference.model import read_config

    if "," not in str(given.get("bands", "")):
        return given
    config = read_config(shipped_models()[model])
    places = matching(config.bands, cutouts.info.bands) if config.channels > 1 else None
    rest = {name: value for name, value in given.items() if name != "bands"}
    return rest if places is None else given | {"bands": ",".join(cutouts.info.bands[place] for place in places)}
