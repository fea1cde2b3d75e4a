"""A source degraded to the target's seeing and noise, and laid over images of the target, which teach what is no lens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from darklens.adaptation.matching import Matching, measure_matching
from darklens.adaptation.self_ensembling import AveragedModule
from darklens.data.batches import Batch
from darklens.errors import RecipeError


class DarkLensModule(AveragedModule):
    """Learn source images that are degraded to the target, most of them with an image of the target added.

    What is in the target is then in images of both classes alike, so that neither a look-alike that the source lacks nor a
    trait of the exposures is a sign of a lens. A moving average of the weights, with statistics of normalisation of the
    target, is what is kept.
    """

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.matching: Matching | None = None
        if self.method.superposed > 0 and len(self.task.classes) != 2:
            raise RecipeError(
                f"adaptation.superposed is for two classes, of which nearly all of the target is in the first; there are "
                f"{len(self.task.classes)}: say --adaptation.superposed 0"
            )

    @property
    def decay(self) -> float:
        """Decay of the moving average that is kept."""
        return float(self.method.average_decay)

    def on_fit_start(self) -> None:
        """Measure seeing and noise of both domains."""
        assert self.source_sample is not None
        assert self.target is not None
        seeing = self.method.seeing if self.method.match_seeing else 0.0
        noise = self.method.match_noise
        self.matching = measure_matching(self.source_sample, self.target.validation, seeing=seeing, noise=noise)
        note = f"source images are blurred by a Gaussian of {self.matching.seeing:.2f} pixels"
        note += ", and noise is added up to that of the target" if noise else ""
        if note not in self.notes:
            self.notes.append(note)

    def training_step(self, batch: Batch) -> Tensor:
        """Return the task's loss on source images as `source_views` makes them."""
        images, targets = self.source_views(batch)
        loss = self.supervised_loss(self.student(images).float(), targets)
        loss = loss + self.few_labels_loss(self.student, len(images))
        with torch.no_grad():
            self.network(self.weak_view(batch))  # for the statistics of normalisation
        self.log_losses(len(images), loss=loss)
        return loss

    def source_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the prepared source images of a batch, the first ones laid over target images, and their targets.

        Each target image is made fainter by a factor of its own. Noise is added up to that of the target.
        """
        assert self.matching is not None
        images, others = batch["image"], batch["unlabelled"]
        count = min(round(self.method.superposed * len(images)), len(others))
        factor = torch.zeros(len(images))
        faintest = float(self.method.faintest)
        factor[:count] = faintest + (1 - faintest) * torch.rand(count, generator=self._generator)
        changed = self.matching(images, self._generator, lacking=1 - factor.square())
        changed[:count] += factor[:count, None, None, None].to(images) * others[:count]
        # Noise maps and fits of lenses are those of images before they were changed.
        kept = {key: value for key, value in batch.items() if key not in ("noise", "row")}
        return self.augmented(kept | {"image": changed})
