"""The random generators of splits and batch orders, which stored runs rely on."""

import numpy as np

from darklens.data.seeds import make_generator


def test_streams_are_those_of_numpy_with_the_numbers_of_stored_runs():
    for seed in (0, 5, 2**40):
        expected = np.random.default_rng(np.random.SeedSequence([seed, 7])).integers(0, 1000, 6)
        np.testing.assert_array_equal(make_generator(seed, "split").integers(0, 1000, 6), expected)
        expected = np.random.default_rng(np.random.SeedSequence([seed, 11, 3])).integers(0, 1000, 6)
        np.testing.assert_array_equal(make_generator(seed, "batch order", 3).integers(0, 1000, 6), expected)
        expected = np.random.default_rng(np.random.SeedSequence([seed, 17])).integers(0, 1000, 6)
        np.testing.assert_array_equal(make_generator(seed, "calibration").integers(0, 1000, 6), expected)


def test_other_seeds_purposes_and_keys_give_other_numbers():
    streams = [(1, "split"), (2, "split"), (1, "batch order"), (1, "batch order", 1), (1, "batch order", 2)]
    streams += [(1, "unlabelled order"), (1, "calibration"), (2, "calibration")]
    drawn = {tuple(make_generator(*stream).integers(0, 1000, 6).tolist()) for stream in streams}
    assert len(drawn) == len(streams)
