"""Learn from images without labels, by one of several methods; the encoder is then fine-tuned for something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from darklens.errors import DataError, RecipeError
from darklens.tasks.base import Gallery, Needs, Task

if TYPE_CHECKING:
    import numpy as np
    import torchmetrics
    from lightning.pytorch import LightningModule
    from torch import Tensor, nn

    from darklens.data.dataset import Cutouts
    from darklens.data.preprocessing import Preprocessing
    from darklens.evaluation.bootstrap import Interval, Metric
    from darklens.tasks.optimization import LearningOptions

Method = Literal["mae", "vicreg", "simclr", "contrastive-pairs", "dino"]

_VIEWS: dict[str, float] = {"shift": 4, "blur": 1.0, "noise": 1.0}
DEFAULTS: dict[str, dict[str, float]] = {
    "mae": {},
    "vicreg": {"embedding": 64, **_VIEWS},
    "simclr": {"embedding": 64, "temperature": 0.2, **_VIEWS},
    "contrastive-pairs": {"embedding": 64, "margin": 1.0, **_VIEWS},
    "dino": {"embedding": 256, "temperature": 0.1, "momentum": 0.99, **_VIEWS},
}
"""Options of each method, and their values unless a recipe says otherwise. Temperatures are those of the papers, views a
choice that was not tuned."""
COLLAPSED = 2.0
"""Effective rank below which embeddings are said to have collapsed: those along a line have 1."""
MISTAKES = 12
"""Images that a report shows, those that were rebuilt worst: as many as fill its rows."""

REBUILT = 5
"""Images whose reconstructions a report draws: the best, the worst, and three of equal steps in rank between."""


@dataclass(frozen=True)
class Pretrain(Task):
    """Learn an encoder from images alone; labels are never read, nor is the split stratified by them.

    Parameters
    ----------
    method
        mae (rebuild hidden parts; takes the network masked-autoencoder), or what brings views of an image together:
        vicreg, simclr, contrastive-pairs, dino.
    embedding
        Numbers that the network makes of an image for the loss: 64, or 256 of dino.
    temperature
        Of simclr (0.2) and of dino's student (0.1); its teacher has 0.4 of it.
    margin
        Of contrastive-pairs: distance from 0 to 2 beyond which two images are far enough apart (1).
    momentum
        Of dino: what the teacher keeps of its weights at each step (0.99).
    shift
        Largest shift of a view along each axis, whole pixels (4).
    blur
        Largest standard deviation of the Gaussian by which a view is blurred, pixels (1).
    noise
        Largest standard deviation of the noise that is added to a view, in units of the sky's (1).
    """

    method: Method = "mae"
    embedding: int | None = None
    temperature: float | None = None
    margin: float | None = None
    momentum: float | None = None
    shift: int | None = None
    blur: float | None = None
    noise: float | None = None

    pretrains: ClassVar[bool] = True
    headlines: ClassVar[Sequence[str]] = ("reconstruction", "reconstruction_error", "effective_rank")
    mistakes_title: ClassVar[str] = "Images that were rebuilt worst"

    def __post_init__(self) -> None:
        known = DEFAULTS[self.method]
        for name in sorted({each for options in DEFAULTS.values() for each in options}):
            value = getattr(self, name)
            if value is not None and name not in known:
                takers = [method for method, options in DEFAULTS.items() if name in options]
                raise RecipeError(f"task.{name} is for the method {', '.join(takers)}; this is {self.method}")
        least = {"embedding": 2, "shift": 0, "blur": 0, "noise": 0}
        for name, low in least.items():
            if name in known and self._option(name) < low:
                raise RecipeError(f"task.{name} must be at least {low}; got {self._option(name)}")
        if "temperature" in known and not self._option("temperature") > 0:
            raise RecipeError(f"task.temperature must be above 0; got {self.temperature}")
        if "margin" in known and not 0 < self._option("margin") <= 2:
            raise RecipeError(f"task.margin is a distance on a sphere, above 0 and at most 2; got {self.margin}")
        if "momentum" in known and not 0 <= self._option("momentum") < 1:
            raise RecipeError(f"task.momentum must be from 0 to below 1; got {self.momentum}")

    def _option(self, name: str) -> float:
        given: float | None = getattr(self, name)
        return DEFAULTS[self.method][name] if given is None else given

    @property
    def _rebuilds(self) -> bool:
        return self.method == "mae"

    @property
    def ranking(self) -> str:  # type: ignore[override]
        """Key of the metric of its method."""
        return "reconstruction" if self._rebuilds else "effective_rank"

    @property
    def must_agree(self) -> Sequence[str]:  # type: ignore[override]
        """Embeddings of different networks have nothing in common, and are not to be averaged."""
        if self._rebuilds:
            return ("method",)
        raise RecipeError(f"models of the method {self.method} cannot be averaged: each has axes of its own")

    @property
    def needs(self) -> Needs:
        """Images alone."""
        return Needs(stratify=None)

    def targets(self, cutouts: Cutouts) -> np.ndarray:
        """Return 0 for each image: there is nothing to predict but what the image itself says."""
        import numpy as np

        return np.zeros((len(cutouts), 1))

    def check_split(self, targets: np.ndarray, where: str) -> None:
        """Refuse a part of one image, which has no other to be told from."""
        if not self._rebuilds and len(targets) < 2:
            raise DataError(f"{where}: {len(targets)} images; the method {self.method} takes 2 at least")

    @property
    def output_names(self) -> Sequence[str]:
        """Errors of the reconstruction, or the numbers of the embedding."""
        if self._rebuilds:
            return ("reconstruction_error", "constant_error")
        return [f"z{number}" for number in range(int(self._option("embedding")))]

    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the mean squared error of hidden pixels, of the method mae."""
        return output[:, 0].mean()

    def validation_metrics(self) -> dict[str, torchmetrics.Metric]:
        """Return the effective rank of embeddings; of mae, the loss says all."""
        from darklens.evaluation.embedding import EffectiveRank

        return {} if self._rebuilds else {"effective_rank": EffectiveRank(self.outputs)}

    def module(self, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions) -> LightningModule:
        """Return the Lightning module of the method."""
        from functools import partial

        from darklens.models.masked import MaskedAutoencoder
        from darklens.pretraining import losses
        from darklens.pretraining.views import Views
        from darklens.tasks.supervised import SupervisedModule
        from darklens.tasks.two_views import SelfDistillation, TwoViews

        rebuilds = isinstance(network, MaskedAutoencoder)
        if rebuilds != self._rebuilds:
            raise RecipeError(
                f"task.method {self.method} takes "
                + ("--network.name masked-autoencoder" if self._rebuilds else "any network but masked-autoencoder")
            )
        if self._rebuilds:
            return SupervisedModule(self, network, preprocessing, options)
        views = Views(int(self._option("shift")), self._option("blur"), self._option("noise"))
        if self.method == "dino":
            temperature, momentum = self._option("temperature"), self._option("momentum")
            return SelfDistillation(
                self, network, preprocessing, options, views=views, temperature=temperature, momentum=momentum
            )
        loss: Callable[[Tensor, Tensor], Tensor] = losses.vicreg
        if self.method == "simclr":
            loss = partial(losses.simclr, temperature=self._option("temperature"))
        elif self.method == "contrastive-pairs":
            loss = partial(losses.contrastive_pairs, margin=self._option("margin"))
        return TwoViews(self, network, preprocessing, options, views=views, of_views=loss)

    def concern_of_training(self, measured: Mapping[str, float], images: int) -> str | None:
        """Return that embeddings have collapsed, if they have."""
        rank = measured.get("effective_rank")
        return None if rank is None or rank >= COLLAPSED or images < self.outputs else _collapsed(rank, self.outputs)

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return the error of the reconstruction, as a fraction of that of a constant, or the effective rank."""
        from darklens.evaluation.bootstrap import Metric, mean_statistic
        from darklens.evaluation.embedding import embedding_metrics

        if not self._rebuilds:
            return embedding_metrics(predicted)
        error, constant = mean_statistic(predicted[:, 0]), mean_statistic(predicted[:, 1])
        title = "Squared error of hidden pixels, fraction of that of the mean of shown ones"
        return [
            Metric("reconstruction", title, lambda w: error(w) / constant(w), better="lower", perfect=0),
            Metric("reconstruction_error", "Squared error of hidden pixels", error, better="lower", perfect=0),
        ]

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return a warning of a model that rebuilds nothing, or of embeddings that have collapsed."""
        figure = figures[self.ranking]
        if not self._rebuilds:
            few = figure.n < self.outputs
            return [] if figure.value >= COLLAPSED or few else [_collapsed(figure.value, self.outputs)]
        if figure.high < 1:
            return []
        return [
            f"the model rebuilds hidden pixels no better than the mean of the shown ones does: its error is "
            f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f}) of that on {figure.n:,} images; train it longer"
        ]

    def captions(self, predicted: np.ndarray) -> list[str]:
        """Return the error of each reconstruction; of embeddings there is nothing to say in a few words."""
        if not self._rebuilds:
            return [""] * len(predicted)
        return [f"error {error:.2f}, of a constant {constant:.2f}" for error, constant in predicted]

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return the images that were rebuilt worst, in units of the error of a constant, and some from best to worst."""
        import numpy as np

        if not self._rebuilds:
            return Gallery()
        order = np.argsort(-predicted[:, 0] / np.maximum(predicted[:, 1], 1e-12), kind="stable")
        worst = order[:MISTAKES]
        steps = np.unique(np.linspace(0, len(order) - 1, min(REBUILT, len(order))).round().astype(int))
        drawn = order[::-1][steps]
        return Gallery(
            rebuilt=drawn.tolist(),
            rebuilt_captions=[f"error {error:.3f}\nconstant {constant:.3f}" for error, constant in predicted[drawn]],
            mistakes=worst.tolist(),
            truths=[f"constant {predicted[row, 1]:.2f}" for row in worst],
            called=[f"error {predicted[row, 0]:.2f}" for row in worst],
        )

    def purpose(self) -> str:
        """Return what a model is for."""
        return "To start from with other recipes (`darklens train RECIPE --start RUN`), which take its encoder"

    def limits(self) -> str:
        """Return what a model is not for."""
        return (
            "It has seen no labels, and knows no classes: its outputs are "
            + ("errors of a reconstruction" if self._rebuilds else "numbers without a meaning of their own")
            + ", and images that it finds unusual need not be rare or interesting."
        )


def _collapsed(rank: float, size: int) -> str:
    return (
        f"the embeddings have collapsed: their effective rank is {rank:.2f} of {size}, so nearly all images look alike to "
        "the network; try a lower --optimizer.lr, a larger --trainer.batch_size, or views that differ more"
    )
