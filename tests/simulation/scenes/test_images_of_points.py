"""Images of points behind lenses, against lenstronomy's solver."""

import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from darklens.simulation.scenes.images_of_points import images_of_points


def lenses(count, seed=1):
    rng = np.random.default_rng(seed)
    theta_E = rng.uniform(0.5, 2, count)
    beta, angle = 0.6 * theta_E * np.sqrt(rng.uniform(size=count)), rng.uniform(0, 2 * np.pi, count)
    x, y = rng.normal(0, 0.05, (2, count))
    columns = {"theta_E": theta_E, "lens_x": x, "lens_y": y}
    columns |= {name: rng.normal(0, 0.15, count) for name in ("e1", "e2")}
    columns |= {name: rng.normal(0, 0.05, count) for name in ("gamma1", "gamma2")}
    return columns, x + beta * np.cos(angle), y + beta * np.sin(angle)


def test_images_and_magnifications_are_those_of_lenstronomy():
    columns, source_x, source_y = lenses(40)
    lens, x, y, magnification = images_of_points(columns, source_x, source_y)
    model = LensModel(["SIE", "SHEAR"])
    solver = LensEquationSolver(model)
    numbers = []
    for i in range(40):
        value = {name: values[i] for name, values in columns.items()}
        keywords = [
            {"theta_E": value["theta_E"], "e1": value["e1"], "e2": value["e2"]}
            | {"center_x": value["lens_x"], "center_y": value["lens_y"]},
            {"gamma1": value["gamma1"], "gamma2": value["gamma2"]},
        ]
        their_x, their_y = solver.image_position_from_source(
            source_x[i], source_y[i], keywords, min_distance=0.02, search_window=6 * value["theta_E"],
            precision_limit=1e-12, num_iter_max=100,
        )  # fmt: skip
        theirs = np.abs(model.magnification(their_x, their_y, keywords))
        theirs, order = theirs[theirs > 1e-3], np.argsort(theirs[theirs > 1e-3])
        mine = np.flatnonzero(lens == i)
        mine = mine[np.argsort(magnification[mine])]
        assert magnification[mine] == pytest.approx(theirs[order], rel=1e-3)
        assert x[mine] == pytest.approx(their_x[: len(theirs)][order], abs=1e-5)
        assert y[mine] == pytest.approx(their_y[: len(theirs)][order], abs=1e-5)
        numbers.append(len(mine))
    assert {2, 4} <= set(numbers)


def test_a_round_lens_has_two_images_at_known_places():
    zero, one = np.zeros(1), np.ones(1)
    columns = dict.fromkeys(("e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2"), zero) | {"theta_E": one}
    lens, x, y, magnification = images_of_points(columns, 0.4 * one, zero)
    assert (lens == 0).all()
    order = np.argsort(x)
    assert x[order] == pytest.approx([-0.6, 1.4], abs=1e-6)
    assert y == pytest.approx(0, abs=1e-6)
    assert magnification[order] == pytest.approx([1 / 0.4 - 1, 1 / 0.4 + 1], rel=1e-4)


def test_no_lenses_have_no_images():
    columns, source_x, source_y = lenses(0)
    assert all(len(found) == 0 for found in images_of_points(columns, source_x, source_y))
