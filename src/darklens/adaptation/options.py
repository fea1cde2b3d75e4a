"""What a recipe may say under ``adaptation:``, a dataclass for each method. No PyTorch here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from darklens.errors import RecipeError
from darklens.schema import typed_arguments, unknown_key

if TYPE_CHECKING:
    from torch import nn

    from darklens.adaptation.module import AdaptationModule
    from darklens.data.preprocessing import Preprocessing
    from darklens.tasks.base import Task
    from darklens.tasks.optimization import LearningOptions

Selection = Literal["source", "entropy", "information", "density", "last"]


@dataclass(frozen=True)
class StrongViews:
    """Strong augmentation of preprocessed images: what differs between exposures, in units of each image's scatter.

    Parameters
    ----------
    blur
        Largest standard deviation of an additional Gaussian point-spread function, pixels.
    noise
        Largest standard deviation of additional noise, as a fraction of that of the image's pixels.
    background
        Largest change of the background level, as a fraction of the same.
    patch
        Largest side of a masked square, as a fraction of the image's side.
    shift
        Largest shift in each direction, pixels.
    """

    blur: float = 1.0
    noise: float = 0.3
    background: float = 0.3
    patch: float = 0.25
    shift: int = 3

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 0:
                raise RecipeError(f"adaptation.strong.{each.name} must be at least 0; got {getattr(self, each.name)}")
        if self.patch >= 1:
            raise RecipeError(f"adaptation.strong.patch is a fraction of the side, below 1; got {self.patch}")


@dataclass(frozen=True)
class Method:
    """One way to adapt a network to a target without labels. Subclasses add their options as fields.

    Parameters
    ----------
    select
        What chooses the epoch that is kept: ``information`` (mutual information of target images and predicted classes,
        the largest), ``entropy`` (mean entropy of predictions on the target, the lowest), ``density`` (soft neighbourhood
        density of the target, the largest), ``source`` (validation loss on the source), or ``last``. None reads target
        labels.
    on_collapse
        What to do when one class is predicted for all target images in two epochs in a row: ``stop``, or ``note`` it.
    label_weight
        Weight of the loss on target images whose labels are given (``--labels``).

    Attributes
    ----------
    home
        Module and class of its Lightning module.
    needs_classes
        Whether it is for tasks that predict classes alone.
    needs_start
        Whether it begins with a network that has been trained on the source.
    steps_itself
        Whether it steps several optimisers itself, so that the trainer cannot clip gradients.
    """

    select: Selection = "information"
    on_collapse: Literal["stop", "note"] = "stop"
    label_weight: float = 1.0

    home: ClassVar[str] = ""
    needs_classes: ClassVar[bool] = False
    needs_start: ClassVar[bool] = False
    steps_itself: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for each in fields(self):
            number = getattr(self, each.name)
            if isinstance(number, int | float) and not isinstance(number, bool) and number < 0:
                raise RecipeError(f"adaptation.{each.name} must be at least 0; got {number}")

    def module(
        self, task: Task, network: nn.Module, preprocessing: Preprocessing, *, options: LearningOptions
    ) -> AdaptationModule:
        """Return the Lightning module that adapts a network by this method.

        Parameters
        ----------
        task
            What is learned.
        network
            From preprocessed images (N, C, H, W) to outputs (N, K).
        preprocessing
            Fitted to source images; target images are preprocessed alike.
        options
            Optimiser, schedule, augmentation and seed.

        Raises
        ------
        RecipeError
            If the method, or the choice of the epoch, is for tasks that predict classes.
        """
        if not task.classes and (self.needs_classes or self.select not in ("source", "last")):
            what = "this method" if self.needs_classes else f"adaptation.select {self.select}"
            raise RecipeError(f"{what} is for tasks that predict classes; choose --adaptation.select source, or last")
        home, _, name = self.home.partition(":")
        made: AdaptationModule = getattr(importlib.import_module(home), name)(
            task, network, preprocessing, options, method=self
        )
        return made


@dataclass(frozen=True)
class SourceOnly(Method):
    """Learn from the source alone; the target is only looked at. The baseline."""

    select: Selection = "source"
    on_collapse: Literal["stop", "note"] = "note"
    home: ClassVar[str] = "darklens.adaptation.source_only:SourceOnlyModule"


@dataclass(frozen=True)
class AdaBN(Method):
    """Learn from the source, and take means and variances of batch normalisation from the target (Li et al. 2017).

    Parameters
    ----------
    statistics_images
        Target images from which they are taken.
    """

    statistics_images: int = 2048
    home: ClassVar[str] = "darklens.adaptation.adabn:AdaBNModule"


@dataclass(frozen=True)
class Dann(Method):
    """Domain-adversarial training: features from which a discriminator cannot tell the domain (Ganin et al. 2016).

    Parameters
    ----------
    weight
        Weight of the reversed gradient at the end of its rise.
    rise
        How fast it rises over the training: 2 / (1 + exp(-rise × share)) - 1.
    discriminator
        Widths of the hidden layers of the discriminator.
    """

    weight: float = 1.0
    rise: float = 10.0
    discriminator: list[int] = field(default_factory=lambda: [128, 128])
    home: ClassVar[str] = "darklens.adaptation.dann:DannModule"


@dataclass(frozen=True)
class Cdan(Dann):
    """Domain-adversarial training within each predicted class (CDAN, Long et al. 2018).

    Parameters
    ----------
    entropy
        Whether images of which the network is sure count for more (CDAN+E).
    """

    entropy: bool = True
    home: ClassVar[str] = "darklens.adaptation.cdan:CdanModule"
    needs_classes: ClassVar[bool] = True


@dataclass(frozen=True)
class Adda(Method):
    """Train a target encoder that a discriminator takes for the source's (ADDA, Tzeng et al. 2017).

    The recipe's optimiser is that of the target encoder; the classifier stays as the source taught it.

    Parameters
    ----------
    discriminator
        Widths of the hidden layers of the discriminator.
    discriminator_lr
        Its learning rate.
    """

    discriminator: list[int] = field(default_factory=lambda: [128, 128])
    discriminator_lr: float = 1e-4
    home: ClassVar[str] = "darklens.adaptation.adda:AddaModule"
    needs_start: ClassVar[bool] = True
    steps_itself: ClassVar[bool] = True


@dataclass(frozen=True)
class SelfEnsembling(Method):
    """Learn target images from a mean teacher's confident predictions (French et al. 2018).

    Parameters
    ----------
    teacher_decay
        Decay of the teacher's weights, an exponential moving average of the student's.
    threshold
        Probability above which the teacher is believed.
    weight
        Weight of the squared difference between student and teacher.
    balance
        Weight, relative to that, of the loss that keeps classes equally frequent among predictions.
    strong
        Augmentation of what the student sees.
    """

    teacher_decay: float = 0.99
    threshold: float = 0.968
    weight: float = 3.0
    balance: float = 0.005
    strong: StrongViews = field(default_factory=StrongViews)
    home: ClassVar[str] = "darklens.adaptation.self_ensembling:SelfEnsemblingModule"
    needs_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_decay >= 1:
            raise RecipeError(f"adaptation.teacher_decay must be below 1; got {self.teacher_decay}")


@dataclass(frozen=True)
class AdaMatch(Method):
    """Pseudo-labels of weak views for strong ones, with aligned distributions (Berthelot et al. 2022).

    Parameters
    ----------
    tau
        Confidence threshold, relative to the mean confidence on the weakly augmented source.
    align
        Whether pseudo-labels are scaled to the source's mean prediction. Wrong by construction where classes are much
        rarer in the target.
    align_decay
        Decay of the running means of predictions that the alignment uses; 0 takes those of the batch.
    weight
        Weight of the target's loss at the end of its rise.
    strong
        Augmentation of strong views.
    """

    tau: float = 0.9
    align: bool = True
    align_decay: float = 0.9
    weight: float = 1.0
    strong: StrongViews = field(default_factory=StrongViews)
    home: ClassVar[str] = "darklens.adaptation.adamatch:AdaMatchModule"
    needs_classes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.align_decay >= 1:
            raise RecipeError(f"adaptation.align_decay must be below 1; got {self.align_decay}")


@dataclass(frozen=True)
class DarkLens(Method):
    """Learn a source that is degraded to the target's seeing and noise, most of it laid over images of the target.

    Parameters
    ----------
    superposed
        Share of the source images of a batch to which an image of the target is added.
    faintest
        Lowest factor on the target image then, drawn uniformly up to 1.
    average_decay
        Decay of the moving average of the weights that is kept.
    match_noise
        Whether noise is added to source images until it has the level and the correlation of the target's.
    match_seeing
        Whether source images are blurred by what the target's power spectrum lacks.
    seeing
        Standard deviation, pixels, of the Gaussian that they are blurred by, where it is known; None measures it.
    """

    select: Selection = "last"
    superposed: float = 0.75
    faintest: float = 0.3
    average_decay: float = 0.99
    match_noise: bool = True
    match_seeing: bool = True
    seeing: float | None = None
    home: ClassVar[str] = "darklens.adaptation.darklens:DarkLensModule"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("superposed", "faintest"):
            if getattr(self, name) > 1:
                raise RecipeError(f"adaptation.{name} is at most 1; got {getattr(self, name)}")
        if self.average_decay >= 1:
            raise RecipeError(f"adaptation.average_decay must be below 1; got {self.average_decay}")


@dataclass(frozen=True)
class Sidda(Method):
    """Bring the features of both domains together by their Sinkhorn divergence, with learned weights (Pandya et al. 2025).

    Parameters
    ----------
    blur
        Entropic regularisation as a fraction of the largest distance between features in the batch.
    iterations
        Of Sinkhorn's algorithm.
    start_epoch
        First epoch with the divergence; those before learn from the source alone.
    """

    blur: float = 0.05
    iterations: int = 100
    start_epoch: int = 1
    home: ClassVar[str] = "darklens.adaptation.sidda:SiddaModule"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.blur <= 0:
            raise RecipeError(f"adaptation.blur must be above 0; got {self.blur}")


METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "adabn": AdaBN,
    "dann": Dann,
    "cdan": Cdan,
    "adda": Adda,
    "self-ensembling": SelfEnsembling,
    "adamatch": AdaMatch,
    "sidda": Sidda,
    "darklens": DarkLens,
}


def make_method(content: Mapping[str, Any], where: str) -> Method | None:
    """Return the method that keys and values describe, those of a recipe's ``adaptation``; None if there are none.

    Parameters
    ----------
    content
        The ``method`` and its options.
    where
        Names the recipe in errors.

    Raises
    ------
    RecipeError
        If there is no such method, an option is misspelt, or its value makes no sense.
    """
    if not content:
        return None
    name = content.get("method")
    if name not in METHODS:
        known = ", ".join(METHODS)
        if name is None:
            raise RecipeError(f"{where}: adaptation.method is needed; there are {known}")
        raise RecipeError(f"{where}: adaptation.method: {unknown_key(str(name), list(METHODS))}; there are {known}")
    options = {key: value for key, value in content.items() if key != "method"}
    arguments = typed_arguments(METHODS[name], options, where=where, prefix="adaptation.", error=RecipeError)
    return METHODS[name](**arguments)
