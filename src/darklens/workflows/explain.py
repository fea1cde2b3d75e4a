"""Draw where a model looks in some images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from darklens.data.checks import check_finite
from darklens.data.layouts import open_data
from darklens.errors import DataError
from darklens.inference.adapt import adaptation
from darklens.inference.explain import attributions
from darklens.inference.model import load_model
from darklens.report.figures import explanation, save

MOST = 24


def explain_images(run: Path, paths: Sequence[Path], out: Path, mask: bool = False) -> list[str]:
    """Draw each image beside what its pixels add to the answer; returns a line on each image.

    Raises
    ------
    DataError
        If there are more images than can be looked at.
    """
    model = load_model(run)
    images: list[np.ndarray] = []
    maps: list[np.ndarray] = []
    captions: list[str] = []
    for path in paths:
        cutouts = open_data(path)
        if len(cutouts) + len(images) > MOST:
            raise DataError(
                f"{path}: {len(cutouts)} images; at most {MOST} can be explained at once: name single files"
            )
        adapt = adaptation(model.config, cutouts.info, cutouts.images.shape)
        read = np.asarray(cutouts.images[np.arange(len(cutouts))], dtype=np.float32)
        batch = adapt(check_finite(read, cutouts.ids, cutouts.info.source, mask))
        prediction = model.predict(batch)
        if prediction.probabilities is None:
            targets = [0] * len(batch)
            assert prediction.values is not None
            said = [f"{model.config.outputs[0]} = {value:.2f}" for value in prediction.values[:, 0]]
        else:
            targets = prediction.probabilities.argmax(1).tolist()
            said = [f"{model.classes[t]} ({p[t]:.2f})" for t, p in zip(targets, prediction.probabilities, strict=True)]
        images += list(batch[:, 0].numpy())
        maps += list(attributions(model, batch, targets))
        captions += [f"{name}: {what}" for name, what in zip(cutouts.ids, said, strict=True)]
    save(explanation(images, maps, captions, model.config.pixel_scale), out)
    return captions
