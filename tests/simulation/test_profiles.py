"""Deflectors of the user's own: a profile in a YAML preset, and a function that draws a population."""

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from numpy.testing import assert_allclose

from darklens.errors import PresetError
from darklens.simulation import Simulator
from darklens.simulation.columns import from_frame
from darklens.simulation.profiles import custom_profile, gather
from darklens.simulation.scene import substructure_deflection, summed_deflection
from darklens.usercode import load_function

CORED = """
def cored(x, y, x0, y0, theta_E, r_core):
    dx, dy = x - x0, y - y0
    r = (dx**2 + dy**2 + r_core**2).sqrt()
    return theta_E * dx / r, theta_E * dy / r
"""
YAML = """
extends: fair-hst
classes:
  sidm:
    subhalos:
      profile: models.py:cored
      mean_count: 5
      parameters: {theta_E: 0.05, r_core: {uniform: [0.01, 0.1]}}
"""
POPULATION = """
import numpy as np

def sidm(rng, lens):
    n = rng.poisson(3)
    theta_E = np.full(n, 0.04 * lens["theta_E"])
    return {"profile": "sis", "x": rng.normal(lens["lens_x"], 1, n), "y": rng.normal(0.3, 1, n), "theta_E": theta_E}
"""


def test_own_profile_deflects_by_its_formula(tmp_path):
    (tmp_path / "models.py").write_text(CORED)
    (tmp_path / "mine.yaml").write_text(YAML)
    simulator = Simulator(tmp_path / "mine.yaml", seed=1, trust_code=True)
    assert simulator.preset.labels == ["no_sub", "cdm", "axion", "sidm"]
    rows = simulator.catalog(40).filter(label="sidm")
    columns = from_frame(rows)
    counts = [len(values) for values in columns["subhalo_x"]]
    assert len(set(counts)) > 1
    x, y = torch.tensor([[0.3, -1.1, 2.0]]).double(), torch.tensor([[0.7, 0.2, -1.6]]).double()
    ax, ay = substructure_deflection(simulator.preset, "sidm", columns, torch.float64)(x, y)
    for i in range(len(rows)):
        dx = x.numpy() - columns["subhalo_x"][i][:, None]
        dy = y.numpy() - columns["subhalo_y"][i][:, None]
        r = np.sqrt(dx**2 + dy**2 + columns["subhalo_r_core"][i][:, None] ** 2)
        assert_allclose(ax[i], (0.05 * dx / r).sum(0), rtol=1e-12, atol=1e-15)
        assert_allclose(ay[i], (0.05 * dy / r).sum(0), rtol=1e-12, atol=1e-15)
    difference = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0] - simulator.without_substructure(rows)
    assert (difference.abs().amax((1, 2)) > 1e-3).tolist() == [count > 0 for count in counts]


def test_own_population_is_drawn_for_its_lens_and_rendered_as_lenstronomy_does(tmp_path):
    (tmp_path / "models.py").write_text(POPULATION)
    simulator = Simulator(f"{tmp_path}/models.py:sidm", seed=1)
    rows = simulator.catalog(64 * 4).filter(label="sidm")
    counts = np.array([len(values) for values in rows["subhalo_x"]])
    assert_allclose(counts.mean(), 3, atol=5 * np.sqrt(3 / len(counts)))
    for row in rows.to_dicts():
        # The catalogue's radius is what is left after the mass of the subhalos is taken from the drawn one.
        assert (np.array(row["subhalo_theta_E"]) > 0.04 * row["theta_E"]).all()
    some = rows[:4]
    uniform = replace(simulator.preset, adaptive=False)
    images = Simulator(uniform).render(some, noise=False, dtype=torch.float64)[:, 0].numpy()
    for image, row in zip(images, some.to_dicts(), strict=True):
        expected = reference.render(uniform, row)
        assert_allclose(image, expected, atol=1e-6 * expected.max())


def test_deflectors_that_an_image_lacks_have_no_weight():
    columns = {"x": [np.array([0.5, -2.0]), np.array([]), np.array([3.0])]}
    columns |= {"y": [-v for v in columns["x"]], "theta_E": [v + 10 for v in columns["x"]]}
    padded = gather("sis", columns, torch.empty(0, dtype=torch.float64))
    assert padded.weights.tolist() == [[1, 1], [0, 0], [1, 0]]
    assert list(padded.parameters) == ["x0", "y0", "theta_E"]
    for name, sign, shift in (("x0", 1, 0), ("y0", -1, 0), ("theta_E", 1, 10)):
        values = padded.parameters[name]
        assert (values[0].tolist(), float(values[2, 0])) == (
            [sign * 0.5 + shift, sign * -2.0 + shift],
            sign * 3.0 + shift,
        )
    with pytest.raises(PresetError, match="profile sis needs x, y, theta_E; missing: theta_E; given: x, y"):
        gather("sis", {"x": columns["x"], "y": columns["y"]}, torch.empty(0))


def test_what_is_infinite_in_one_image_is_nothing_in_those_without_deflectors():
    """An own profile with a singularity that lies on a ray; what pads the other images are copies of it."""

    def singular(x, y, x0, y0):
        return (x - x0).reciprocal(), (y - y0).reciprocal()

    positions = {"x0": torch.tensor([[0.5, 2.0], [0.5, 0.5], [2.0, 0.5]]), "y0": torch.full((3, 2), -1.0)}
    weights = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    x, y = torch.tensor([[0.5, 1.0]]), torch.tensor([[3.0, 1.0]])
    ax, ay = summed_deflection(singular, x, y, parameters=positions, weights=weights)
    assert torch.isinf(ax[0, 0])
    assert_allclose(ax[:, 1], [2 - 1, 0, -1])
    assert_allclose(ax[1:, 0], [0, -1 / 1.5], rtol=1e-6)
    assert_allclose(ay, [[0.5, 1], [0, 0], [0.25, 0.5]])


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("theta_E * (x - x0)", "Tensor"),
        ("None", "NoneType"),
        ("((x - x0).sum(-1), (y - y0).sum(-1))", r"\(2, 3\) and \(2, 3\)"),
        ("((x - x0)[0], y - y0)", r"\(3, 4\) and \(2, 3, 4\)"),
        ("(x - x0, 0.0)", r"\(2, 3, 4\) and float"),
        ("(x - x0, y - y0, 0 * x)", "tuple"),
    ],
)
def test_deflection_of_ones_own_that_returns_something_else_is_refused(returned, said, tmp_path):
    (tmp_path / "own.py").write_text(
        f"def halo(x, y, x0, y0, theta_E):\n    return {returned}\n\n"
        "def plane(x, y, x0, y0, theta_E):\n    return 0.5 + 0 * x, theta_E * (y - y0)\n"
    )
    columns = {"x": [np.ones(4)] * 2, "y": [np.ones(4)] * 2, "theta_E": [np.full(4, 2.0)] * 2}
    x, y = torch.rand(2, 3), torch.rand(2, 3)
    halo, plane = (gather(f"{tmp_path}/own.py:{name}", columns, x) for name in ("halo", "plane"))
    ax, ay = summed_deflection(plane.deflection, x, y, parameters=plane.parameters, weights=plane.weights)
    assert_allclose(ax, np.full((2, 3), 4 * 0.5))
    assert_allclose(ay, 4 * 2 * (y - 1), rtol=1e-6)
    with pytest.raises(PresetError, match=rf"own\.py:halo returned {said}; expected two tensors \(2, 3, 4\)"):
        summed_deflection(halo.deflection, x, y, parameters=halo.parameters, weights=halo.weights)


def test_profile_that_its_name_does_not_lead_to_is_refused(tmp_path):
    (tmp_path / "own.py").write_text(
        "def other(x, y, x0, y0):\n    return x, y\n\n\n"
        "def hidden():\n    def other(x, y, x0, y0):\n        return 0 * x, 0 * y\n    return other\n"
    )
    own = f"{tmp_path}/own.py"
    assert (
        custom_profile({"profile": load_function(f"{own}:other"), "x": [1], "y": [2]}, own + ":f")["profile"]
        == "own.py:other"
    )
    for profile in (load_function(f"{own}:hidden")(), lambda x, y, x0, y0: (x, y)):
        with pytest.raises(
            PresetError, match=r"own\.py: a profile must be a function of this file by its own name; got"
        ):
            custom_profile({"profile": profile, "x": [1], "y": [2]}, own + ":f")


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ([1, 2], "must return a dict with profile, x, y"),
        ({"profile": "sis", "x": [1]}, "must return a dict with profile, x, y"),
        ({"profile": "sphere", "x": [1], "y": [2]}, "no profile 'sphere'; there are point_mass, sis, tnfw, line"),
        ({"profile": "sis", "x": [1, 2], "y": [2]}, "one value for each deflector"),
        ({"profile": "sis", "x": [1], "y": ["far"]}, "models.py:sidm: all parameters are numbers, .* 'far'"),
        ({"profile": "sis", "x": [[1, 2]], "y": [2]}, "models.py:sidm: x is one finite number for each deflector"),
        ({"profile": "sis", "x": [1, 2], "y": [2, np.nan]}, "models.py:sidm: y is one finite number for each"),
    ],
)
def test_population_that_cannot_be_used_is_refused(drawn, message):
    with pytest.raises(PresetError, match=message):
        custom_profile(drawn, "models.py:sidm")
