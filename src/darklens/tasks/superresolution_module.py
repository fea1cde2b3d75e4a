"""Lightning modules that learn finer images: by losses beside that of pixels, against a second network, or by samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss, relu

from darklens.data.augmentation import augment
from darklens.data.batches import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.models.discriminator import Discriminator
from darklens.models.perceptual import feature_network
from darklens.physics.degrading import Response
from darklens.tasks.optimization import LearningOptions, make_optimizer
from darklens.tasks.supervised import SupervisedModule

if TYPE_CHECKING:
    from darklens.tasks.superresolve import Superresolve

VALIDATION_NOISE = 7919
"""Seed of the random numbers in the validation loss of networks that draw samples, which are the same in all epochs."""


class PairModule(SupervisedModule):
    """Learn finer images by losses of pixels, of features, and of the output degraded to the image.

    Parameters
    ----------
    task
        Gives the weights of the losses.
    network
        From preprocessed images (N, C, H, W) to finer ones.
    preprocessing
        Fitted to training images.
    options
        Optimiser, schedule, augmentation and seed.
    """

    task: Superresolve

    def __init__(self, task: Superresolve, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions):
        super().__init__(task, network, preprocessing, options)
        # In lists, so that they are no parts of the module: they are not trained, and checkpoints do without them.
        self._features = [feature_network(task.features)] if task.perceptual else []
        self._responses: list[Response] = [task.learned_response()] if task.consistency else []

    def content_loss(self, output: Tensor, targets: Tensor, seen: Tensor) -> Tensor:
        """Return the sum of the losses that need no second network.

        Parameters
        ----------
        output
            Of the network, (N, C, H, W).
        targets
            (N, C, H, W), in their own unit.
        seen
            The images as the detector gave them, turned as the targets are, (N, C, h, w).

        Returns
        -------
        Tensor
            One number.
        """
        loss = self.task.pixel * self.task.loss(output, targets, self.current_epoch + 1)
        for network in self._features:
            network.to(output.device)
            found, true = (network(each) for each in (output, self.task.standardised(targets)))
            loss = loss + self.task.perceptual * l1_loss(found, true.detach())
        for response in self._responses:
            excess = relu(_chi_square(self.task.predictions(output), seen, response, self.task.factor) - 1)
            loss = loss + self.task.consistency * excess.mean()
        return loss

    def turned(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the prepared images of a batch, its targets, and its images as they came, all turned alike."""
        state = self._generator.get_state()
        images, targets = self.augmented(batch)
        self._generator.set_state(state)
        return images, targets, augment(batch["image"].float(), self.options.augmentation, self._generator)

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of a training batch."""
        images, targets, seen = self.turned(batch)
        loss = self.content_loss(self.outputs(images, batch), targets, seen)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Log the same loss of a validation batch, without that of a second network, and collect its predictions."""
        output, targets = self(batch), batch["target"].float()
        loss = self.content_loss(output, targets, batch["image"].float())
        self.metrics.update(self.task.predictions(output).contiguous(), targets)
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(output), sync_dist=True)


class AdversarialModule(PairModule):
    """Learn finer images against a network that tells them from true ones, relative to each other (arXiv:1809.00219).

    Two optimisers take turns in each step; both, and the second network, are in the checkpoints of a run.

    Parameters
    ----------
    task
        Gives the weights of the losses.
    network
        From preprocessed images (N, C, H, W) to finer ones.
    preprocessing
        Fitted to training images.
    options
        Optimiser, schedule, augmentation and seed, of both networks.
    """

    def __init__(self, task: Superresolve, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions):
        super().__init__(task, network, preprocessing, options)
        self.automatic_optimization = False
        self.discriminator = Discriminator(task.channels)

    def configure_optimizers(self) -> Any:
        """Return an optimiser and a schedule for each of the networks."""
        made = [make_optimizer(self.options.optimizer, each) for each in (self.network, self.discriminator)]
        return made, [self.schedule(each) for each in made]

    def training_step(self, batch: Batch) -> None:  # type: ignore[override]
        """Step the network, then the one that tells its images from true ones."""
        images, targets, seen = self.turned(batch)
        generator, discriminator = self.optimizers()  # type: ignore[attr-defined]
        output, true = self.outputs(images, batch), self.task.standardised(targets)
        self.discriminator.requires_grad_(False)
        against = relativistic_loss(self.discriminator(output), self.discriminator(true).detach())
        loss = self.content_loss(output, targets, seen) + self.task.adversarial * against
        self._step(generator, loss)
        self.discriminator.requires_grad_(True)
        told = relativistic_loss(self.discriminator(true), self.discriminator(output.detach()))
        self._step(discriminator, told)
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images))
        self.log("train/discriminator", told, on_step=False, on_epoch=True, batch_size=len(images))

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


class SamplingModule(SupervisedModule):
    """Learn a network that draws samples, by its own loss; random numbers of an epoch follow from the seed."""

    def training_step(self, batch: Batch) -> Tensor:
        """Return the loss of a training batch."""
        images, targets = self.augmented(batch)
        loss = self._loss(images, targets, None)
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch) -> None:
        """Log the loss of a validation batch, with the same random numbers in all epochs."""
        generator = torch.Generator().manual_seed(VALIDATION_NOISE)
        loss = self._loss(self.prepared(batch), batch["target"].float(), generator)
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(batch["image"]), sync_dist=True)

    def _loss(self, images: Tensor, targets: Tensor, generator: torch.Generator | None) -> Tensor:
        task: Any = self.task
        loss: Tensor = self.network.sampling_loss(images, task.standardised(targets), generator)  # type: ignore[operator]
        return loss


def relativistic_loss(more: Tensor, less: Tensor) -> Tensor:
    """Return the relativistic average loss: how far ``more`` (N,) are from being told more real than ``less`` (N,).

    Parameters
    ----------
    more, less
        Logits of images that should, and should not, be taken for true ones.
    """
    above, below = more - less.mean(), less - more.mean()
    return (
        binary_cross_entropy_with_logits(above, torch.ones_like(above))
        + binary_cross_entropy_with_logits(below, torch.zeros_like(below))
    ) / 2


def _chi_square(fine: Tensor, seen: Tensor, response: Response, factor: int) -> Tensor:
    """χ² per pixel (N,) of degraded images, in single precision, with derivatives by the images but not by the variance."""
    from darklens.physics.degrading import degrade, inner, variance

    model = degrade(fine, response.weights, factor)
    return ((inner(seen) - model).square() / variance(response, model.detach())).mean((1, 2, 3))
