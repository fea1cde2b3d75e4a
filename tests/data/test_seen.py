"""Whether a model has seen images: by checksum, or by preset and seed of simulated ones."""

import itertools

import pytest

from darklens.data.dataset import DatasetInfo
from darklens.data.seeds import SEEDS, SIMULATED_FOR, simulation_seed
from darklens.data.seen import how_seen
from darklens.errors import DataError

FOLDER = {"source": "preset:model-1", "seed": 4, "checksum": "a", "simulated": {"preset": "model-1", "seeds": [4]}}
FRESH = {"source": "preset:model-2", "layout": "simulated as it goes", "seed": 7}


def info(preset="model-1", seed=4, checksum=None):
    return DatasetInfo("here", preset=preset and {"name": preset}, seed=seed, checksum=checksum)


@pytest.mark.parametrize(
    ("trained", "images", "expected"),
    [
        (FOLDER, info(checksum="a"), "same images"),
        (FOLDER, info(checksum="b"), "same seed"),
        (FOLDER, info(seed=5, checksum="b"), None),
        (FOLDER, info("model-2"), None),
        (FOLDER, info(None), None),
        (FOLDER, info(None, checksum="a"), "same images"),
        ({"source": "folder", "seed": None, "checksum": None}, info(None, None), None),
        ({"source": "folder", "seed": 4, "simulated": None}, info(), None),
        (FRESH, info("model-2", 7), "same seed"),  # as version 0.1 recorded it
        (FRESH, info("model-2", 1_000_010), "same seed"),
        (FRESH, info("model-2", 8), None),
        ({"source": "preset:model-2", "layout": "dataset", "seed": 7}, info("model-2", 1_000_010), None),
        (FRESH | {"simulated": {"preset": "model-2", "seeds": [9, 11]}}, info("model-2", 11), "same seed"),
        (FRESH | {"simulated": {"preset": "model-2", "seeds": [9, 11]}}, info("model-2", 7), None),
        ({"source": "folder", "also": [FRESH, FOLDER | {"also": [FRESH]}]}, info(), "same seed"),
        ({"source": "folder", "also": [{"source": "x", "also": [FOLDER]}]}, info(checksum="a"), "same images"),
    ],
)
def test_what_a_model_has_seen(trained, images, expected):
    assert how_seen(trained, images) == expected


def test_seeds_of_different_purposes_are_never_the_same():
    some = [0, 1, 2, 1_000_003, SEEDS // 2, SEEDS - 2, SEEDS - 1]
    found = [simulation_seed(seed, purpose) for seed, purpose in itertools.product(some, SIMULATED_FOR)]
    assert len(set(found)) == len(some) * 4
    assert max(found) < 2**32, "numpy's seed sequences take more for two numbers"
    assert [simulation_seed(5, purpose) for purpose in ("dataset", "training")] == [5, 2**30 + 5]
    for seed in (-1, SEEDS):
        with pytest.raises(DataError, match="--seed must be from 0 to 1073741823"):
            simulation_seed(seed, "test")
