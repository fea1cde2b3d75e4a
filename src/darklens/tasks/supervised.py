"""The Lightning module of tasks on images: preprocessing, augmentation, loss, metrics, and seeds that make runs repeat."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from darklens.data.augmentation import augment
from darklens.data.batches import Batch
from darklens.data.lens_cache import LensFitCache
from darklens.data.preprocessing import Preprocessing
from darklens.errors import UserCodeError
from darklens.models.sections import sections, thaw_epochs
from darklens.tasks.base import Task
from darklens.tasks.optimization import LearningOptions, learning_rate_factor, make_optimizer
from darklens.tasks.time_budget import TimeBudget


class SupervisedModule(LightningModule):
    """Train a network on batches of images and targets, with the loss and the metrics of a task.

    Everything random in an epoch follows from the seed and the epoch's number, so that a run that was interrupted
    between epochs goes on to the same result.

    Parameters
    ----------
    task
        What is learned.
    network
        From preprocessed images (N, C, H, W), and inputs from the catalogue (N, F) where a recipe names columns, to outputs
        (N, K).
    preprocessing
        Fitted to training images.
    options
        Optimiser, schedule, augmentation and seed.

    Attributes
    ----------
    time_budget
        The time that the training has, if it is that which ends it and not a number of epochs.
    keeps_last
        Whether the weights of the last epoch are kept, as losses of different epochs cannot be compared; else those of the
        epoch with the lowest validation loss.
    """

    keeps_last: ClassVar[bool] = False

    def __init__(self, task: Task, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions):
        super().__init__()
        self.task = task
        self.network = network
        self.preprocessing = preprocessing
        self.options = options
        metrics: dict[str, Any] = dict(task.validation_metrics())
        if "loss" in metrics:
            raise UserCodeError(
                f"validation_metrics of {type(task).__name__}: loss is the name of the validation loss; give another key"
            )
        self.metrics = MetricCollection(metrics, prefix="validation/")
        self.time_budget: TimeBudget | None = None
        self._generator = torch.Generator()
        self._lens_fits = {"train": LensFitCache(), "validation": LensFitCache()}

    def forward(self, batch: Batch) -> Tensor:
        """Return the network's output (N, K) for a batch of images as they come from the detector."""
        return self.outputs(self.prepared(batch), batch)

    def outputs(self, images: Tensor, batch: Batch) -> Tensor:
        """Return the network's output (N, K) for prepared images (N, C, H, W) and their batch's ``catalog``, if any."""
        output: Tensor = self.network(images, batch["catalog"]) if "catalog" in batch else self.network(images)
        return output.float()

    def prepared(self, batch: Batch) -> Tensor:
        """Return a batch's images preprocessed; the lens of an image that comes again is not fitted again."""
        return self.preprocessing(batch["image"], self.lenses_of(batch), batch.get("noise"))

    def lenses_of(self, batch: Batch) -> Tensor | None:
        """Return the lens parameters (N, P) of a batch's images, fitted once; None where preprocessing is to fit them."""
        if not self.preprocessing.lens_model or "row" not in batch:
            return None
        cache = self._lens_fits["train" if self.training else "validation"]
        return cache.get_or_fit(batch["row"], batch["image"], self.preprocessing.lenses, batch.get("noise"))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the fitted lens parameters in a checkpoint: a resumed run needs the same to the last bit."""
        checkpoint["lenses"] = self._lens_fits["train"].parameters

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the fitted lens parameters from a checkpoint."""
        self._lens_fits["train"] = LensFitCache(checkpoint.get("lenses"))
        for state in ("state_dict", "current_model_state"):  # version 0.1 kept the scale of targets among the weights
            for name in ("center", "scale"):
                checkpoint.get(state, {}).pop(name, None)

    def on_train_epoch_start(self) -> None:
        """Seed augmentation and dropout for this epoch and process."""
        # Primes above any number of epochs (1009 processes) keep the seeds of runs, epochs and processes apart.
        key = (self.options.seed * 1_000_003 + self.current_epoch) * 1009 + self.global_rank
        self._generator.manual_seed(key)
        torch.manual_seed(key)
        if self.options.unfreezing or self.options.frozen:
            self._unfreeze()

    def _unfreeze(self) -> None:
        """Train the sections whose epoch has come; batch norms of the others keep their statistics as well."""
        parameters = dict(self.network.named_parameters())
        epochs, present = self.trainer.max_epochs or 1, self.current_epoch
        if self.time_budget is not None:  # whose epochs may be fewer
            present = epochs - 1 if self.time_budget.is_last_epoch else int(self.time_budget.share * epochs)
        found = sections(self.network)
        if self.options.frozen:
            first = self.options.frozen if self.options.frozen >= 1 else round(self.options.frozen * epochs)
            thawed = [0] + [min(int(first), epochs - 1)] * (len(found) - 1)
        else:
            thawed = thaw_epochs(self.network, epochs)
        for names, epoch in zip(found, thawed, strict=True):
            for name in names:
                parameters[name].requires_grad_(epoch <= present)
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and own:
                module.train(own[0].requires_grad)

    def augmented(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the preprocessed and then augmented images of a batch, and its targets; of pairs both are turned alike."""
        state = self._generator.get_state()
        images = augment(self.prepared(batch), self.options.augmentation, self._generator)
        targets = _floats(batch["target"])
        if self.task.needs.pairs:
            self._generator.set_state(state)
            targets = augment(targets, self.options.augmentation, self._generator)
        return images, targets

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of a training batch."""
        images, targets = self.augmented(batch)
        output = self.outputs(images, batch)
        loss = self._one_number("loss", self.task.loss(output, targets, self.current_epoch + 1))
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Log the validation loss of a batch, and collect its predictions for the metrics."""
        output, targets = self(batch), _floats(batch["target"])
        loss = self._one_number("validation_loss", self.task.validation_loss(output, targets))
        self.metrics.update(self.task.predictions(output), targets)
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(output), sync_dist=True)

    def _one_number(self, what: str, loss: object) -> Tensor:
        """A loss as a task returned it, refused if it is no tensor without dimensions."""
        if not isinstance(loss, Tensor) or loss.ndim:
            found = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise UserCodeError(
                f"{what} of {type(self.task).__name__} returns {found}; expected one number, such as a mean over the batch"
            )
        return loss

    def on_validation_epoch_end(self) -> None:
        """Log the metrics over all validation images."""
        if len(self.metrics):
            self.log_dict(self.metrics.compute(), prog_bar=True, sync_dist=False)
            self.metrics.reset()

    def trained_modules(self) -> nn.Module:
        """Return what the optimiser steps; the network, unless a subclass trains others beside it."""
        return self.network

    def configure_optimizers(self) -> Any:
        """Return the optimiser, and a schedule stepped after every batch."""
        optimizer = make_optimizer(self.options.optimizer, self.trained_modules())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def schedule(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        """Return the schedule of an optimiser's learning rate, to be stepped after every batch."""
        factor, time = learning_rate_factor(self.options.schedule, self.trainer.max_epochs or 1), self.time_budget
        if time is not None:
            return LambdaLR(optimizer, lambda _: factor(time.share, time.step_share))
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        return LambdaLR(optimizer, lambda step: factor(step / steps, 1 / steps))


def _floats(targets: Tensor) -> Tensor:
    """Values in float32, which all devices compute in; label numbers as they are."""
    return targets.float() if targets.is_floating_point() else targets
