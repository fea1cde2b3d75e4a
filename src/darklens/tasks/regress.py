"""Measure a number, such as the logarithm of a mass, from one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from darklens.errors import DataError, RecipeError
from darklens.tasks.base import Gallery, Needs, Task, learned
from darklens.tasks.classify import TRY
from darklens.usercode import is_reference, load_function

if TYPE_CHECKING:
    import numpy as np
    import torchmetrics
    from torch import Tensor

    from darklens.data.dataset import Cutouts
    from darklens.evaluation.bootstrap import Interval, Metric

EXAMPLES, MISTAKES = 12, 12
"""Images, and largest errors, that a report shows: as many as fill its rows."""
LOSSES = ("mse", "mae")
ROUNDING = 1e-6
"""Scatter of targets, as a fraction of their mean, that float32 makes of equal ones; ten times its precision."""


@dataclass(frozen=True)
class Regress(Task):
    """Measure a number.

    The network's output is in units of the scatter of the training targets.

    Parameters
    ----------
    target
        The catalogue column to learn; masses are given in log10.
    error
        The loss: mse, mae, or your own as my_loss.py:function, of outputs and standardised targets (N, 1).
    center, scale
        Mean and standard deviation of the training targets.
    """

    target: str = ""
    error: str = "mse"
    center: list[float] = learned(factory=lambda: [0.0])
    scale: list[float] = learned(factory=lambda: [1.0])

    ranking: ClassVar[str] = "rmse"
    headlines: ClassVar[Sequence[str]] = ("rmse", "mae", "r2", "bias")
    validation_curve: ClassVar[tuple[str, str]] = ("mae", "absolute error")

    def __post_init__(self) -> None:
        if not self.target:
            raise RecipeError("a regression needs a target, the catalogue column to learn")
        if self.error not in LOSSES and not is_reference(self.error):
            known = ", ".join(LOSSES)
            raise RecipeError(f"no loss {self.error!r}; there are {known}, and your own as my_loss.py:function")
        if not len(self.center) == len(self.scale) == 1:
            raise RecipeError(f"center and scale have one value each; got {self.center} and {self.scale}")

    @property
    def needs(self) -> Needs:
        """The column of the target."""
        return Needs((self.target,))

    def targets(self, cutouts: Cutouts) -> np.ndarray:
        """Return values (N, 1), nan where there is none."""
        return cutouts.values(self.target)[:, None]

    def fit(self, targets: np.ndarray) -> Self:
        """Return the task with mean and standard deviation of its training targets."""
        center, scale = targets.mean(0), targets.std(0)
        if not (scale > ROUNDING * abs(center)).all():
            raise DataError(f"every training image has the same {self.target}")
        return dataclasses.replace(self, center=center.tolist(), scale=scale.tolist())

    @property
    def output_names(self) -> Sequence[str]:
        """The column of the target."""
        return (self.target,)

    def predictions(self, output: Tensor) -> Tensor:
        """Return values (N, 1) in the target's own unit."""
        import torch

        scale, center = (torch.tensor(each, device=output.device) for each in (self.scale, self.center))
        return output * scale + center

    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the loss of outputs and standardised targets."""
        import torch

        scale, center = (torch.tensor(each, device=output.device) for each in (self.scale, self.center))
        standardised = (targets - center) / scale
        if is_reference(self.error):
            own: Tensor = load_function(self.error)(output, standardised)
            return own.mean()
        function = {"mse": torch.nn.functional.mse_loss, "mae": torch.nn.functional.l1_loss}[self.error]
        return function(output, standardised)

    def validation_metrics(self) -> dict[str, torchmetrics.Metric]:
        """Return squared and absolute error, in the target's own unit."""
        from torchmetrics.regression import MeanAbsoluteError, MeanSquaredError

        return {"mse": MeanSquaredError(), "mae": MeanAbsoluteError()}

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return errors, explained variance, bias and scatter."""
        from darklens.evaluation.regression import regression_metrics

        return regression_metrics(predicted[:, 0], truth[:, 0])

    def trivial(self, truth: np.ndarray) -> tuple[str, np.ndarray]:
        """Return the mean of the training targets for every image."""
        import numpy as np

        return "always saying the mean", np.full((len(truth), 1), self.center[0])

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return a warning where the 95% interval of R² holds 0, as the mean of the truths has."""
        r2 = figures["r2"]
        if r2.low > 0:
            return []
        return [
            f"the model is no better than always saying the mean: R² is {r2.value:.3f} ({r2.low:.3f} to {r2.high:.3f}) on "
            f"{r2.n:,} images; {TRY}"
        ]

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return images from the lowest to the highest truth, and those of the largest errors."""
        import numpy as np

        error = np.abs(predicted[:, 0] - truth[:, 0])
        worst = np.argsort(-error)[:MISTAKES]
        worst = worst[error[worst] > 0]
        order = np.argsort(truth[:, 0])
        examples = order[np.linspace(0, len(order) - 1, EXAMPLES).astype(int)]
        return Gallery(
            examples=examples.tolist(),
            captions=[f"{self.target} = {truth[row, 0]:.2f}" for row in examples],
            mistakes=worst.tolist(),
            truths=[f"{truth[row, 0]:.2f}" for row in worst],
            called=[f"{predicted[row, 0]:.2f}" for row in worst],
        )

    def panels(
        self, evaluation: Mapping[str, Any], predicted: np.ndarray | None, truth: np.ndarray | None
    ) -> list[Any]:
        """Draw predicted against true values."""
        from darklens.plots import charts

        if predicted is None or truth is None:
            return []
        return [charts.true_against_predicted(truth[:, 0], predicted[:, 0], self.target)]

    def purpose(self) -> str:
        """Return what a model is for."""
        return f"To estimate {self.target} in images like those above"
