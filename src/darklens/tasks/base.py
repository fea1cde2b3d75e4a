"""What all tasks on images share: preprocessing, augmentation, optimiser and schedule, and seeds that make runs repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from darklens.data.augmentation import Augmentation, augment
from darklens.data.batches import Batch
from darklens.data.lens_cache import LensFitCache
from darklens.data.preprocessing import Preprocessing
from darklens.models.sections import sections, thaw_epochs


@dataclass(frozen=True)
class Optimization:
    """Optimiser and schedule; names and meanings are those of recipes."""

    optimizer: str = "AdamW"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.1
    step_epochs: int = 8
    step_factor: float = 0.1


class ImageTask(LightningModule):
    """Train a network on batches of images and targets.

    Everything random in an epoch follows from ``seed`` and the epoch's number, so that a run that was interrupted
    between epochs goes on to the same result.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        optimization: Optimization,
        augmentation: Augmentation = "none",
        seed: int = 0,
        unfreezing: bool = False,
    ):
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.optimization = optimization
        self.augmentation: Augmentation = augmentation
        self.seed = seed
        self.unfreezing = unfreezing
        self._generator = torch.Generator()
        self._lenses = {"train": LensFitCache(), "validation": LensFitCache()}

    def forward(self, batch: Batch) -> Tensor:
        """The network's output for a batch of images as they come from the detector."""
        output: Tensor = self.network(self.prepared(batch))
        return output.float()

    def prepared(self, batch: Batch) -> Tensor:
        """A batch as the network wants it; the lens of an image that comes again is not fitted again."""
        images, lenses = batch["image"], None
        if self.preprocessing.lens_model and "row" in batch:
            known = self._lenses["train" if self.training else "validation"]
            lenses = known.get_or_fit(batch["row"], images, self.preprocessing.lenses)
        return self.preprocessing(images, lenses)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the lenses that were fitted: a run that goes on needs the same to the last bit."""
        checkpoint["lenses"] = self._lenses["train"].parameters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them up again."""
        self._lenses["train"] = LensFitCache(checkpoint.get("lenses"))

    def on_train_epoch_start(self) -> None:
        """Seed augmentation and dropout for this epoch and process."""
        key = (self.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank
        self._generator.manual_seed(key)
        torch.manual_seed(key)
        if self.unfreezing:
            self._thaw()

    def _thaw(self) -> None:
        """Train the sections whose time has come; the statistics of the others' batch norms rest as well."""
        parameters = dict(self.network.named_parameters())
        thawed = thaw_epochs(self.network, self.trainer.max_epochs or 1)
        for names, epoch in zip(sections(self.network), thawed, strict=True):
            for name in names:
                parameters[name].requires_grad_(epoch <= self.current_epoch)
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and own:
                module.train(own[0].requires_grad)

    def augmented_output(self, batch: Batch) -> Tensor:
        """The network's output for a batch of images, augmented."""
        prepared = augment(self.prepared(batch), self.augmentation, self._generator)
        output: Tensor = self.network(prepared)
        return output.float()

    def configure_optimizers(self) -> Any:
        """The optimiser, and a schedule stepped after every batch."""
        o = self.optimization
        decayed = [p for p in self.network.parameters() if p.requires_grad and p.ndim > 1]
        spared = [p for p in self.network.parameters() if p.requires_grad and p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": o.weight_decay}, {"params": spared, "weight_decay": 0.0}]
        optimizer = make_optimizer(o.optimizer, groups, o.lr)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self._factor())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _factor(self) -> Any:
        o = self.optimization
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        per_epoch = max(1, steps // max(1, self.trainer.max_epochs or 1))
        warmup = max(1, round(o.warmup * steps))

        def cosine(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

        def stepped(step: int) -> float:
            return float(o.step_factor ** (step // per_epoch // o.step_epochs))

        return {"cosine": cosine, "step": stepped, "constant": lambda step: 1.0}[o.schedule]


def make_optimizer(name: str, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    """An optimiser by its name in recipes, over groups of parameters."""
    if name == "Muon":
        from timm.optim.muon import Muon

        optimizer: torch.optim.Optimizer = Muon(groups, lr=lr)
        return optimizer
    extra: dict[str, Any] = {"momentum": 0.9, "nesterov": True} if name == "SGD" else {"foreach": True}
    made: torch.optim.Optimizer = getattr(torch.optim, name)(groups, lr=lr, **extra)
    return made
