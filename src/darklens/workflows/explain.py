"""Draw where a model looks in some images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from darklens.data.checks import check_finite
from darklens.data.layouts import open_with
from darklens.data.options import DataOptions
from darklens.errors import DataError, ModelError
from darklens.inference.adapt import adaptation
from darklens.inference.attribution import attributions
from darklens.inference.model import load_model
from darklens.inference.outliers import outlier_note
from darklens.inference.predictions import catalog_rows
from darklens.plots.pictures import explanation, save

PICTURES = (".png", ".jpg", ".pdf", ".svg")
"""Kinds of files that are written."""
MOST = 24


def explain_images(
    run: Path,
    paths: Sequence[Path],
    out: Path,
    options: DataOptions = DataOptions(),
    *,
    trust_code: bool = False,
    prior: float | None = None,
) -> tuple[list[str], list[str]]:
    """Draw each image beside what its pixels add to the answer; return a line on each image, and notes.

    Parameters
    ----------
    run
        A run folder, a model folder, or the name of a shipped model.
    paths
        Images in any layout, at most 24 in all.
    out
        The picture to draw.
    options
        How the paths are read.
    trust_code
        Whether code that the model names may run.
    prior
        Of a lens finder: the fraction of lenses among all objects that probabilities are for; None for the model's own.

    Raises
    ------
    DataError
        If there are more images than can be looked at, or ``out`` is no picture by its name.
    """
    if out.suffix.lower() not in PICTURES:
        raise DataError(f"{out}: a picture is written, whose name ends in {', '.join(PICTURES)}")
    model = load_model(run, trust_code=trust_code)
    if model.task.predicts == "images":
        raise ModelError(
            f"{run}: predicts images, of which explain has nothing to say; darklens superresolve draws them"
        )
    if prior is not None:
        model = model.with_prior(prior)
    notes: list[str] = []
    predicted: list[np.ndarray] = []
    images: list[np.ndarray] = []
    maps: list[np.ndarray] = []
    captions: list[str] = []
    for path in paths:
        cutouts = open_with(path, options)
        if len(cutouts) + len(images) > MOST:
            raise DataError(
                f"{path}: {len(cutouts)} images; at most {MOST} can be explained at once: name single files"
            )
        adapt = adaptation(model.config, cutouts.info, cutouts.images.shape, options.chosen(cutouts.info.bands))
        read = np.asarray(cutouts.images[np.arange(len(cutouts))], dtype=np.float32)
        maps_of_noise = None if cutouts.noise is None else cutouts.noise[np.arange(len(cutouts))]
        checked = check_finite(read, cutouts.ids, cutouts.where, mask=options.mask)
        batch, sky = adapt.with_noise(checked, maps_of_noise)
        catalog = catalog_rows(model, cutouts)
        prediction = model.predict(batch, noise=sky, catalog=catalog)
        said = [] if catalog is None else model.catalog_notes(catalog, cutouts.where)
        strange = outlier_note(prediction.outlier_score)
        of_path = [*cutouts.overruled, *adapt.notes, *said, *([strange] if strange else [])]
        notes += [f"{path}: {note}" for note in of_path]
        predicted.append(prediction.array)
        targets = model.task.explained_outputs(prediction.array)
        found = model.task.captions(prediction.array)
        if prediction.outlier_score is not None:
            flags = [f", outlier {score:.1f}" if score > 1 else "" for score in prediction.outlier_score]
            found = [text + flag for text, flag in zip(found, flags, strict=True)]
        images += list(batch[:, 0].numpy())
        maps += list(attributions(model, batch, targets, noise=sky, catalog=catalog))
        captions += [f"{name}: {what}" for name, what in zip(cutouts.ids, found, strict=True)]
    prior_text = model.task.prior_text
    save(explanation(images, maps, captions, model.config.pixel_scale, note=prior_text), out)
    return captions, [*notes, *model.task.notes(np.concatenate(predicted))]
