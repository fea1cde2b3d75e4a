"""The sub-pixels that get more rays, against a sort of all values."""

import numpy as np
import pytest
import torch

from darklens.simulation.choosing import ROW, choose


def chosen_of(choice, image):
    own = choice.index[choice.owners == image][choice.there[choice.owners == image] > 0]
    return sorted(own.tolist())


@pytest.mark.parametrize("most", [0, 1, 40, 500])
def test_ragged_choices_are_the_largest_above_a_threshold(most):
    """Images of none, one, two and three rows of values, with ties and a value that is not a number."""
    rng = np.random.default_rng(most)
    owners = torch.tensor([1, 2, 2, 3, 3, 3])
    values = torch.from_numpy(rng.integers(0, 50, (6, 70)) / 10.0)
    values[1, 3] = torch.nan
    above = torch.tensor([1.0, 2.0, 9.0, 0.0], dtype=torch.float64)
    found = choose(values, owners, above, most=most, ragged=True)
    assert found.index.shape == found.there.shape == (len(found.owners), ROW)
    assert (found.owners.diff() >= 0).all()
    assert (owners[found.index // 70] == found.owners[:, None]).all(), "copies are of the same image"
    flat = values.flatten()
    for image in range(4):
        own = flat[torch.tensor(chosen_of(found, image), dtype=torch.long)]
        wanted = flat[(owners == image).repeat_interleave(70)]
        wanted = wanted[wanted > above[image]].sort(descending=True).values[:most]
        assert own.sort(descending=True).values.tolist() == wanted.tolist()
        assert len(set(chosen_of(found, image))) == len(wanted), "none twice"
    if most == 40:
        assert [len(chosen_of(found, image)) for image in range(4)] == [0, 40, 0, 40]


def test_there_are_two_rows_where_nothing_is_chosen():
    found = choose(torch.zeros(3, 9), torch.arange(3), torch.ones(3), most=5, ragged=True)
    assert found.index.shape == (2, ROW)
    assert not found.there.any()


def test_an_image_does_not_depend_on_those_beside_it():
    values = torch.rand(5, 300, generator=torch.Generator().manual_seed(1))
    above = torch.full((5,), 0.4)
    whole = choose(values, torch.arange(5), above, most=100, ragged=True)
    alone = choose(values[3:4], torch.arange(1), above[:1], most=100, ragged=True)
    assert [i - 900 for i in chosen_of(whole, 3)] == chosen_of(alone, 0)


def test_choices_are_joined_row_by_row_or_side_by_side():
    values = torch.rand(3, 80, generator=torch.Generator().manual_seed(2))
    every, above = torch.arange(3), torch.tensor([0.2, 0.9, 0.5])
    for ragged in (True, False):
        first = choose(values, every, above, most=20, ragged=ragged)
        rest = values.flatten().scatter(0, first.index.flatten(), -1.0).view(3, 80)
        second = choose(rest, every, torch.zeros(3), most=10, ragged=ragged)
        both = first.joined(second, ragged=ragged)
        assert (both.owners.diff() >= 0).all()
        for image in range(3):
            assert chosen_of(both, image) == sorted(chosen_of(first, image) + chosen_of(second, image))
        wanted = values.flatten()[both.index]
        assert (both.of(values) == wanted).all()
