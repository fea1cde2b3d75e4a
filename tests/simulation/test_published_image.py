"""An image that DeepLense published is reproduced when nothing but the position of its source is free."""

import numpy as np
import pytest
import torch
from conftest import EXAMPLES

from darklens.simulation import Simulator


@pytest.mark.parametrize(("preset", "agrees"), [("model-3", True), ("model-2", False)])
def test_published_no_sub_image_is_model_3(preset, agrees):
    published = torch.from_numpy(np.load(EXAMPLES / "deeplense" / "no_sub.npy"))
    simulator = Simulator(preset)
    row = simulator.catalog(1)
    position = np.array([-0.06, 0.08])

    def residual(at: np.ndarray) -> np.ndarray:
        rows = row.with_columns(source_x=at[0], source_y=at[1])
        image = simulator.render(rows, noise=False, dtype=torch.float64)[0, 0]
        return (image / image.max() - published).numpy().ravel()

    from scipy.optimize import least_squares

    found = least_squares(residual, position, x_scale=0.01, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    worst = np.abs(found.fun).max()
    assert worst < 1e-8 if agrees else worst > 0.1
