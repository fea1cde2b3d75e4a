"""Predict the image of a sharper telescope from that of another, in pairs of the same scenes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from darklens.errors import DataError, RecipeError
from darklens.tasks.base import Gallery, Needs, Task, learned

if TYPE_CHECKING:
    import numpy as np
    import torchmetrics
    from lightning.pytorch import LightningModule
    from torch import Tensor, nn

    from darklens.data.dataset import Cutouts
    from darklens.data.preprocessing import Preprocessing
    from darklens.evaluation.bootstrap import Interval, Metric
    from darklens.physics.degrading import Response
    from darklens.tasks.optimization import LearningOptions

EXAMPLES = 12
"""Images that a report shows."""


@dataclass(frozen=True)
class Superresolve(Task):
    """Make images finer.

    The network's output is in units of the scatter of the images, from their mean, as ``preprocessing.stretch: none`` gives
    them to it; predictions are in the unit of the targets.

    Parameters
    ----------
    error
        The loss of a pixel: l1 or mse.
    pixel
        Weight of that loss.
    consistency
        Weight of a loss that degrades the output by point-spread function and pixels, learned from the training pairs, and
        compares it with the image: what χ² per pixel is above 1.
    perceptual
        Weight of the distance of features that a trained classifier sees in output and target.
    features
        That classifier: imagenet for VGG-19, whose weights are fetched once; or a model of darklens for images of one band,
        by its name or folder.
    adversarial
        Weight of a relativistic adversarial loss (arXiv:1809.00219), against a second network with an optimiser of its own.
    samples
        Of a network that draws samples of finer images: how many are drawn of each; 0 for all other networks. Predictions
        are then the mean of the samples, their standard deviation, and the lowest and highest of each pixel.
    least_correlation
        Pairs whose images correlate less than this with their targets, summed to the same pixels, are refused: they do not
        show the same scene.
    factor, channels
        Fine pixels along the side of a pixel, and bands.
    center, scale, flux_ratio
        Mean and scatter of the training images times the ratio of a target's flux per pixel to an image's.
    data_range
        Span of the pixels of the training targets, for which PSNR and SSIM are given.
    response, sky, shot
        How pixels gather the light of finer ones, and the variance of their noise (`darklens.physics.degrading.Response`).
    """

    error: Literal["l1", "mse"] = "l1"
    pixel: float = 1.0
    consistency: float = 0.0
    perceptual: float = 0.0
    features: str = "imagenet"
    adversarial: float = 0.0
    samples: int = 0
    least_correlation: float = 0.1
    factor: int = learned(2)
    channels: int = learned(1)
    center: float = learned(0.0)
    scale: float = learned(1.0)
    flux_ratio: float = learned(1.0)
    data_range: float = learned(1.0)
    response: list[list[float]] = learned(factory=list)
    sky: list[float] = learned(factory=list)
    shot: list[float] = learned(factory=list)

    ranking: ClassVar[str] = "psnr"
    headlines: ClassVar[Sequence[str]] = (
        "psnr",
        "ssim",
        "ms_ssim",
        "mse",
        "flux_bias",
        "chi2",
        "power_new",
        "coverage",
    )
    validation_curve: ClassVar[tuple[str, str]] = ("psnr", "PSNR")
    must_agree: ClassVar[Sequence[str]] = ("factor", "channels", "samples")
    predicts: ClassVar[Literal["columns", "images"]] = "images"
    benchmark_preset: ClassVar[str] = "fair-hst"
    _seen = None  # no field: the test images that `with_images` keeps

    def __post_init__(self) -> None:
        for name in ("pixel", "consistency", "perceptual", "adversarial"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise RecipeError(f"task.{name} is a weight, 0 or above; got {getattr(self, name)}")
        if self.samples != 0 and self.samples < 3:
            raise RecipeError(f"task.samples is 0, or at least 3, which have a spread; got {self.samples}")
        if self.samples and (self.consistency or self.perceptual or self.adversarial):
            raise RecipeError("task.samples: a network that draws samples has a loss of its own; leave the others out")
        if self.adversarial and not self.pixel and not self.perceptual:
            raise RecipeError("task.adversarial needs task.pixel or task.perceptual beside it, which say what is true")

    @property
    def needs(self) -> Needs:
        """An image to predict for each."""
        return Needs(pairs=True)

    def for_data(self, cutouts: Cutouts) -> Self:
        """Return the task with the factor between the sides of targets and images, and the number of bands.

        Raises
        ------
        DataError
            If there are no targets, they are not a whole multiple of the images, or do not show the same scenes.
        """
        import numpy as np

        from darklens.tasks.superresolution_pairs import check_pairs, factor_of

        factor = factor_of(cutouts)
        checked = dataclasses.replace(self, factor=factor, channels=int(cutouts.images.shape[1]))
        rows = np.arange(len(cutouts))
        if "split" in cutouts.catalog.columns:  # the span of the test's targets is not to be known
            rows = np.flatnonzero((cutouts.catalog["split"] != "test").fill_null(True).to_numpy())
        low, high = check_pairs(cutouts, rows, self.least_correlation)
        if not high > low:
            raise DataError(f"{cutouts.where}: every pixel of the targets has the same value")
        return dataclasses.replace(checked, data_range=float(high - low))

    def targets(self, cutouts: Cutouts) -> np.ndarray:
        """Return the targets (N, C, H, W), float32.

        Raises
        ------
        DataError
            If there are none, they are not of the model's factor, or do not show the same scenes as the images.
        """
        import numpy as np

        from darklens.tasks.superresolution_pairs import check_pairs, factor_of

        if (factor := factor_of(cutouts)) != self.factor:
            raise DataError(
                f"{cutouts.where}: targets have {factor} times as many pixels a side as images; the model makes images "
                f"{self.factor} times finer"
            )
        if (bands := cutouts.images.shape[1]) != self.channels:
            raise DataError(f"{cutouts.where}: images have {bands} bands, and the model was trained on {self.channels}")
        rows = np.arange(len(cutouts))
        check_pairs(cutouts, rows, self.least_correlation)
        assert cutouts.targets is not None
        return np.asarray(cutouts.targets[rows], dtype=np.float32)

    def fit_pairs(self, images: np.ndarray, targets: np.ndarray) -> Self:
        """Return the task with scale and noise of the images, and how they follow from their targets.

        Parameters
        ----------
        images
            Of training, (n, C, H, W).
        targets
            (n, C, H × factor, W × factor).

        Raises
        ------
        DataError
            If all pixels of the images are alike, or they are too small to learn a response from.
        """
        import numpy as np
        import torch

        from darklens.physics.degrading import REACH, fit_response
        from darklens.tasks.superresolution_pairs import flux_ratio

        if min(images.shape[-2:]) < 2 * REACH + 1:
            raise DataError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels are too small for super-resolution"
            )
        low, high = torch.from_numpy(np.asarray(images)), torch.from_numpy(np.asarray(targets))
        spread, ratio = float(low.std()), flux_ratio(low, high, self.factor)
        if not spread > 0:
            raise DataError("every pixel of the training images has the same value")
        fitted = fit_response(low, high)
        return dataclasses.replace(
            self,
            center=float(low.mean()) * ratio,
            scale=spread * abs(ratio),
            flux_ratio=ratio,
            response=[each.flatten().tolist() for each in fitted.weights],
            sky=fitted.sky.tolist(),
            shot=fitted.shot.tolist(),
        )

    def learned_response(self) -> Response:
        """Return how pixels gather the light of finer ones, and their noise, as the training pairs taught."""
        import torch

        from darklens.physics.degrading import Response

        weights = torch.tensor(self.response, dtype=torch.float64)
        side = round(weights.shape[-1] ** 0.5)
        sky, shot = (torch.tensor(each, dtype=torch.float64) for each in (self.sky, self.shot))
        return Response(weights.reshape(-1, side, side), sky, shot)

    def with_images(self, images: np.ndarray) -> Self:
        """Return the task with the test images (N, C, H, W), with which degraded predictions are compared."""
        found = copy.copy(self)
        object.__setattr__(found, "_seen", images)
        return found

    @property
    def output_names(self) -> Sequence[str]:
        """``image``, or a name for each band; of samples, also their spread, lowest and highest."""
        kinds = ("image", "spread", "lowest", "highest") if self.samples else ("image",)
        if self.channels == 1:
            return kinds
        return [f"{kind}_{band}" for kind in kinds for band in range(self.channels)]

    @property
    def finer_by(self) -> int:
        """Factor between the sides of targets and images."""
        return self.factor

    def predictions(self, output: Tensor) -> Tensor:
        """Return images (N, C, H, W) in the unit of the targets; of samples (N, 4 C, H, W), as `output_names` has them."""
        if not self.samples:
            return output * self.scale + self.center
        import torch

        image, spread, *ends = torch.split(output, self.channels, dim=1)
        values = [image * self.scale + self.center, spread * self.scale]
        return _joined([*values, *(each * self.scale + self.center for each in ends)])

    def standardised(self, targets: Tensor) -> Tensor:
        """Return targets in the unit of the network's output."""
        return (targets - self.center) / self.scale

    def loss(self, output: Tensor, targets: Tensor, epoch: int) -> Tensor:
        """Return the loss of pixels, of outputs and standardised targets."""
        import torch

        self.check_size(output, targets)
        function = torch.nn.functional.l1_loss if self.error == "l1" else torch.nn.functional.mse_loss
        return function(output[:, : self.channels], self.standardised(targets))

    def check_size(self, output: Tensor, targets: Tensor) -> None:
        """Refuse outputs of a network that makes images of another size than the targets.

        Raises
        ------
        RecipeError
            If so.
        """
        if output.shape[-2:] != targets.shape[-2:]:
            height, width = output.shape[-2:]
            raise RecipeError(
                f"the network makes images of {height}×{width} pixels, and targets have {targets.shape[-2]}×"
                f"{targets.shape[-1]}: say --network.scale {self.factor}"
            )

    def validation_metrics(self) -> dict[str, torchmetrics.Metric]:
        """Return PSNR over all pixels; none of samples, which take long to draw."""
        from torchmetrics.image import PeakSignalNoiseRatio

        return {} if self.samples else {"psnr": PeakSignalNoiseRatio(data_range=self.data_range)}

    def module(self, network: nn.Module, preprocessing: Preprocessing, options: LearningOptions) -> LightningModule:
        """Return the Lightning module for the losses that have a weight.

        Raises
        ------
        RecipeError
            If the network makes images of another factor, or draws samples where none are asked for, or the reverse.
        """
        from darklens.tasks import superresolution_module as modules

        if (made := getattr(network, "scale", self.factor)) != self.factor:
            raise RecipeError(
                f"the network makes images {made} times finer, and targets are {self.factor} times finer: say "
                f"--network.scale {self.factor}"
            )
        if hasattr(network, "sampling_loss") != bool(self.samples):
            raise RecipeError(
                "task.samples is for networks that draw samples, such as flow; this one gives one image"
                if self.samples
                else "the network draws samples: say how many with --task.samples 9"
            )
        knows: Any = network
        if self.response and hasattr(network, "learn_response"):
            knows.learn_response(
                self.learned_response(),
                image=(preprocessing.center, preprocessing.scale),
                target=(self.center, self.scale),
            )
        if self.samples:
            return modules.SamplingModule(self, network, preprocessing, options)
        kind = modules.AdversarialModule if self.adversarial else modules.PairModule
        return kind(self, network, preprocessing, options)

    def columns(self, predicted: np.ndarray, sets: np.ndarray | None) -> dict[str, Any]:
        """Return the flux of each predicted image (N, C, H, W), all bands together."""
        return {"flux": predicted[:, : self.channels].sum((1, 2, 3))}

    def truth_columns(self, truth: np.ndarray) -> dict[str, Any]:
        """Return the flux of each target (N, C, H, W), all bands together."""
        import numpy as np

        return {"true_flux": truth.sum((1, 2, 3), dtype=np.float64)}

    def captions(self, predicted: np.ndarray) -> list[str]:
        """Return the flux of each predicted image."""
        return [f"flux {flux:.4g}" for flux in self.columns(predicted, None)["flux"]]

    def metrics(self, predicted: np.ndarray, truth: np.ndarray, sets: np.ndarray | None = None) -> list[Metric]:
        """Return errors, similarities, fluxes, positions and power; χ² if `with_images` gave the images."""
        from darklens.evaluation import superresolution as measured

        c = self.channels
        image = predicted[:, :c]
        found = measured.image_metrics(image, truth, data_range=self.data_range, factor=self.factor)
        if self._seen is not None and self.response:
            found.append(measured.degraded_metric(image, truth, self._seen, self.learned_response(), self.factor))
        if self.samples and predicted.shape[1] == 4 * c:
            spread, low, high = predicted[:, c : 2 * c], predicted[:, 2 * c : 3 * c], predicted[:, 3 * c :]
            share = (self.samples - 1) / (self.samples + 1)
            found += measured.coverage_metrics(low, high, spread, truth, share)
        return found

    def interpolated(self, kind: Literal["bicubic", "lanczos"]) -> np.ndarray | None:
        """Return the test images on finer pixels, in the unit of the targets; None if there are none."""
        import numpy as np
        import torch

        from darklens.physics import degrading

        if self._seen is None:
            return None
        images = torch.from_numpy(np.asarray(self._seen, dtype=np.float32))
        return getattr(degrading, kind)(images, self.factor).numpy() * np.float32(self.flux_ratio)

    def trivial(self, truth: np.ndarray) -> tuple[str, np.ndarray] | None:
        """Return bicubic interpolation, if `with_images` gave the test images."""
        found = self.interpolated("bicubic")
        return None if found is None else ("bicubic interpolation", found)

    def baselines(self, truth: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """Return bicubic and Lanczos interpolation, if `with_images` gave the test images."""
        kinds: tuple[Literal["bicubic", "lanczos"], ...] = ("bicubic", "lanczos")
        return [(kind, found) for kind in kinds if (found := self.interpolated(kind)) is not None]

    def concerns(self, figures: Mapping[str, Interval], predicted: np.ndarray, truth: np.ndarray) -> list[str]:
        """Return a warning of a model whose PSNR is not above that of bicubic interpolation of the same images."""
        from darklens.evaluation.bootstrap import paired_differences

        if (trivial := self.trivial(truth)) is None or len(truth) < 2:
            return []
        ours, theirs = (self.metrics(each, truth)[0] for each in (predicted, trivial[1]))
        gap = paired_differences({"model": ours, "bicubic": theirs}, len(truth))[0]
        if gap.low > 0:
            return []
        return [
            f"the model cannot be told from bicubic interpolation, or is worse: its PSNR is {gap.value:+.2f} dB from that "
            f"({gap.low:+.2f} to {gap.high:+.2f}) on {len(truth):,} images"
        ]

    def gallery(self, predicted: np.ndarray, truth: np.ndarray) -> Gallery:
        """Return images from the faintest to the brightest target."""
        import numpy as np

        order = np.argsort(truth.sum((1, 2, 3)))
        rows = order[np.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).astype(int)]
        return Gallery(examples=rows.tolist(), captions=[f"flux {truth[row].sum():.3g}" for row in rows])

    def panels(
        self, evaluation: Mapping[str, Any], predicted: np.ndarray | None, truth: np.ndarray | None
    ) -> list[Any]:
        """Draw typical and worst images beside their truth, and the power of the predictions by scale."""
        if predicted is None or truth is None or self._seen is None:
            return []
        return self.comparison_pictures({"output": predicted}, truth)

    def comparison_pictures(self, predicted: Mapping[str, np.ndarray], truth: np.ndarray) -> list[Any]:
        """Draw typical and worst images of each method with residuals on one scale, and the power by scale."""
        import numpy as np

        from darklens.tasks.superresolution_pictures import beside_truth_and_power

        bicubic = self.interpolated("bicubic")
        if bicubic is None or not len(truth):
            return []
        noise = max(float(np.mean(self.sky)), 0.0) ** 0.5 * abs(self.flux_ratio) if self.sky else 0.0
        methods = {name: each[:, : self.channels] for name, each in predicted.items()}
        seen = np.asarray(self._seen, dtype=np.float32) * self.flux_ratio
        return beside_truth_and_power(methods, bicubic, truth, seen, factor=self.factor, noise=noise)

    def purpose(self) -> str:
        """Return what a model is for."""
        return f"To make images like those above {self.factor} times finer"

    def limits(self) -> str:
        """Return what a model is not for."""
        return (
            "What it adds beyond the resolution of an image is what its training images had: a guess, not a measurement. "
            "Do not search its output for substructure without the comparison of benchmarks/superresolution_classify.py."
        )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    import torch

    return torch.cat(list(parts), dim=1)
