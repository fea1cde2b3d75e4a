import numpy as np
import torch
from numpy.testing import assert_array_equal

from darklens.simulation import Simulator
from darklens.simulation.columns import columns_of, from_frame, select, to_frame

COLUMNS = {
    "id": np.array([7, 3, 9]),
    "label": np.array(["no_sub", "cdm", "axion"]),
    "theta_E": np.array([1.25, np.nan, -0.5]),
    "subhalo_x": [None, np.array([0.5, -2.0]), np.array([])],
    "subhalo_profile": [None, "sis", "models.py:cored"],
}


def test_table_holds_nulls_and_lists_and_converts_back():
    frame = to_frame(COLUMNS)
    assert frame.to_dicts() == [
        {"id": 7, "label": "no_sub", "theta_E": 1.25, "subhalo_x": None, "subhalo_profile": None},
        {"id": 3, "label": "cdm", "theta_E": None, "subhalo_x": [0.5, -2.0], "subhalo_profile": "sis"},
        {"id": 9, "label": "axion", "theta_E": -0.5, "subhalo_x": [], "subhalo_profile": "models.py:cored"},
    ]
    back = from_frame(frame)
    assert list(back) == list(COLUMNS)
    assert_array_equal(back["theta_E"], COLUMNS["theta_E"])
    assert back["subhalo_profile"] == COLUMNS["subhalo_profile"]
    assert back["subhalo_x"][0] is None
    assert_array_equal(back["subhalo_x"][1], [0.5, -2.0])


def test_rows_are_chosen_in_the_given_order():
    chosen = select(COLUMNS, np.array([2, 0]))
    assert_array_equal(chosen["id"], [9, 7])
    assert chosen["subhalo_profile"] == ["models.py:cored", None]
    assert chosen["subhalo_x"][1] is None


def test_columns_become_tensors_of_a_dtype():
    theta_E, ids = columns_of(select(COLUMNS, np.array([2, 0])), ["theta_E", "id"], torch.float32)
    assert_array_equal(theta_E, torch.tensor([-0.5, 1.25], dtype=torch.float32))
    assert_array_equal(ids, torch.tensor([9.0, 7.0]))
    assert theta_E.dtype == torch.float32


def test_catalog_renders_the_same_from_a_table_and_from_columns():
    simulator = Simulator("fair-hst", 3)
    rows = simulator.catalog(6, start=5)
    assert torch.equal(simulator.render(rows), simulator.render(from_frame(rows)))
