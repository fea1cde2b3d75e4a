"""A source degraded to the target's seeing and noise, and a mean teacher that knows the frequency of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from darklens.adaptation.adamatch import target_weight
from darklens.adaptation.matching import Matching, measure_matching
from darklens.adaptation.self_ensembling import SelfEnsemblingModule
from darklens.data.batches import Batch
from darklens.errors import RecipeError


class DarkLensModule(SelfEnsemblingModule):
    """Learn degraded source images, and target images from the teacher's confident predictions.

    The teacher, which is kept, never sees the source: its statistics of normalisation are those of the target.
    """

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        self.matching: Matching | None = None
        if self.method.prior is not None and len(self.task.classes) != 2:
            raise RecipeError(f"adaptation.prior is for two classes; there are {len(self.task.classes)}")

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

    def source_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return degraded, prepared source images of a batch, and their targets."""
        assert self.matching is not None
        # Noise maps and fits of lenses are those of images before they were degraded.
        kept = {key: value for key, value in batch.items() if key not in ("noise", "row")}
        degraded: Batch = kept | {"image": self.matching(batch["image"], self._generator)}
        return self.augmented(degraded)

    def expected_classes(self, targets: Tensor) -> Tensor:
        """Return how frequent classes (K,) are in the target: as ``prior`` says, or as in this batch of the source."""
        if (prior := self.method.prior) is not None:
            return torch.tensor([1 - prior, prior])
        return torch.bincount(targets, minlength=len(self.task.classes)) / len(targets)

    def rise(self) -> float:
        """Return the factor on the weight of the target's loss: from 0 to 1 over the first half, as in AdaMatch."""
        return target_weight(self.share_done)
