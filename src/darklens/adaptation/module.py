"""The Lightning module that methods of domain adaptation share: views of the target, validators, and notice of collapse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from darklens.adaptation.options import StrongViews
from darklens.adaptation.validators import information, mean_entropy, neighbourhood_density
from darklens.data.augmentation import augment
from darklens.data.batches import Batch
from darklens.data.preprocessing import Preprocessing
from darklens.data.strong_views import strong_view
from darklens.errors import ModelError, TrainingError
from darklens.models.heads import last_linear
from darklens.tasks.base import Task
from darklens.tasks.optimization import LearningOptions
from darklens.tasks.supervised import SupervisedModule

SELECTION = "validation/selection"
"""What is logged for the choice of the epoch: the lower, the better."""
LEAST_INFORMATION = 1e-3
"""Mutual information of target images and predicted classes, nats, below which predictions that all name one class count
as collapsed. Of a target with one lens among 1,000 that are all told apart it is 0.008; of constant predictions, 0."""
LEAST_IMAGES = 50
"""Validation images of the target below which a collapse is noted and stops nothing: so few may be of one class."""
BATCH = 64
"""Target images that are predicted at a time."""


@dataclass
class TargetImages:
    """Images of the target, brought to size and bands of the source.

    Attributes
    ----------
    train
        A dataset that returns ``{"image": (n, C, H, W)}`` for a list of row numbers.
    validation
        Images (n, C, H, W) on which validators look.
    labelled, labels
        The few images (m, C, H, W) whose labels are given, and their targets (m,); None without.
    """

    train: Any
    validation: Tensor
    labelled: Tensor | None = None
    labels: Tensor | None = None


class AdaptationModule(SupervisedModule):
    """Learn from labelled source images and, in ways that subclasses define, from target images without labels.

    Parameters
    ----------
    task, network, preprocessing, options
        As of `SupervisedModule`; ``network`` is what is kept.
    method
        The method's options.

    Attributes
    ----------
    target
        Images of the target; set before the training begins.
    source_sample
        Source images (n, C, H, W), as they come from the detector; set before the training begins.
    notes
        What a user should know of how the training went.
    """

    def __init__(
        self, task: Task, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions, *, method: Any
    ):
        super().__init__(task, network, preprocessing, options)
        self.method: Any = method
        self.target: TargetImages | None = None
        self.source_sample: Tensor | None = None
        self.notes: list[str] = []
        self._collapsed = 0

    @property
    def share_done(self) -> float:
        """Share of the training that is done, from 0 to 1."""
        if self.time_budget is not None:
            return float(self.time_budget.share)
        return min(1.0, self.trainer.global_step / max(1, int(self.trainer.estimated_stepping_batches)))

    def weak_view(self, batch: Batch) -> Tensor:
        """Return the target images of a batch preprocessed and turned as the source's are, (N, C, H, W)."""
        return augment(self.preprocessing(batch["unlabelled"]), self.options.augmentation, self._generator)

    def strong_view(self, images: Tensor, strong: StrongViews) -> Tensor:
        """Return strongly augmented views of preprocessed images (N, C, H, W)."""
        view: Tensor = strong_view(
            images,
            self._generator,
            blur=strong.blur,
            noise=strong.noise,
            background=strong.background,
            patch=strong.patch,
            shift=strong.shift,
        )
        return view

    def supervised_loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Return the task's loss of outputs (N, K) on labelled images."""
        return self._one_number("loss", self.task.loss(output, targets, self.current_epoch + 1))

    def few_labels_loss(self, network: nn.Module, count: int) -> Tensor:
        """Return the weighted loss on target images whose labels are given; 0 where none are.

        Parameters
        ----------
        network
            What is trained.
        count
            Images to draw at most, with repetition.
        """
        target = self.target
        if target is None or target.labelled is None or target.labels is None:
            return torch.zeros((), device=self.device)
        rows = torch.randint(len(target.labels), (min(count, 2 * len(target.labels)),), generator=self._generator)
        prepared = self.preprocessing(target.labelled[rows].to(self.device))
        images = augment(prepared, self.options.augmentation, self._generator)
        weight = float(self.method.label_weight)
        return weight * self.supervised_loss(network(images).float(), target.labels[rows].to(self.device))

    def log_losses(self, count: int, **losses: Tensor) -> None:
        """Log losses of a training step over so many images, by name."""
        for name, value in losses.items():
            self.log(f"train/{name}", value.detach(), prog_bar=True, on_step=True, on_epoch=True, batch_size=count)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics on the source and the validators on the target, and notice a collapse."""
        super().on_validation_epoch_end()
        if self.target is None or self.trainer.sanity_checking:
            return
        measured = self._validators() if self.task.classes else {}
        self.log_dict({f"validation/target_{name}": value for name, value in measured.items()})
        if self.method.select == "last":
            self.log(SELECTION, -float(self.current_epoch))
        elif self.method.select != "source":
            value = measured[self.method.select]
            self.log(SELECTION, value if self.method.select == "entropy" else -value)
        if measured:
            self._notice_collapse(measured)

    def _validators(self) -> dict[str, float]:
        """Validators and the share of the class that is predicted most, by name."""
        predictions = self.task.predictions(torch.cat(list(self._target_outputs()))).double().cpu()
        most = torch.bincount(predictions.argmax(1), minlength=predictions.shape[1]).max() / len(predictions)
        return {
            "entropy": float(mean_entropy(predictions)),
            "information": float(information(predictions)),
            "density": float(neighbourhood_density(predictions)),
            "largest_class": float(most),
        }

    def _target_outputs(self) -> Iterator[Tensor]:
        """Outputs of the network, in its state of evaluation, on the target's validation images."""
        assert self.target is not None
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            for images in torch.split(self.target.validation, BATCH):
                output: Tensor = self.network(self.preprocessing(images.to(self.device)))
                yield output.float()
        self.network.train(training)

    def _notice_collapse(self, measured: dict[str, float]) -> None:
        collapsed = measured["largest_class"] == 1 and measured["information"] < LEAST_INFORMATION
        self._collapsed = self._collapsed + 1 if collapsed else 0
        if self._collapsed != 2:
            return
        assert self.target is not None
        said = (
            f"collapse: in epochs {self.current_epoch} and {self.current_epoch + 1} one class is predicted for all "
            f"{len(self.target.validation):,} validation images of the target, whatever they show"
        )
        if self.method.on_collapse == "stop" and len(self.target.validation) >= LEAST_IMAGES:
            raise TrainingError(
                f"{said}. Train anew with a lower --optimizer.lr, fewer --trainer.epochs or another method; where the "
                "target holds next to none of the other class, --adaptation.on_collapse note goes on"
            )
        self.notes.append(said)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store in a checkpoint, beside what is stored of every training, for how many epochs predictions are collapsed."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["adaptation"] = {"collapsed": self._collapsed, "notes": self.notes}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        super().on_load_checkpoint(checkpoint)
        known = checkpoint.get("adaptation", {})
        self._collapsed, self.notes = int(known.get("collapsed", 0)), list(known.get("notes", []))


def outputs_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return a network's outputs and the features that its last dense layer reads.

    Parameters
    ----------
    network
        From images (N, C, H, W) to outputs (N, K).
    images
        Preprocessed.

    Returns
    -------
    tuple of Tensor
        Outputs (N, K) and features (N, F), float32, with gradients.
    """
    layer = _last(network)
    seen: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        output: Tensor = network(images)
    finally:
        hook.remove()
    return output.float(), seen[-1].float().flatten(1)


def feature_count(network: nn.Module) -> int:
    """Return the number of features that a network's last dense layer reads."""
    return _last(network).in_features


def _last(network: nn.Module) -> nn.Linear:
    layer = last_linear(network)
    if layer is None:
        raise ModelError("the network has no dense layer at its end, so there are no features to adapt; choose another")
    return layer


def discriminator(features: int, hidden: list[int]) -> nn.Sequential:
    """Return a network that tells the domain of features: dense layers with PReLU, and one logit.

    Parameters
    ----------
    features
        Numbers that come in.
    hidden
        Widths of the hidden layers.
    """
    sizes = [features, *hidden]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.PReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
