"""The equivariant transformer: the same answer for turned and mirrored copies, to rounding."""

import pytest
import torch

from darklens.data.augmentation import transform
from darklens.errors import ModelError
from darklens.models.equivariant import C4
from darklens.models.registry import build_network
from darklens.models.rotated import SummedCopies, invariant_positions, undone

SMALL = {"width": 16, "depth": 2, "heads": 2}


def network(**options):
    torch.manual_seed(0)
    return build_network("equivariant-transformer", 2, 3, SMALL | options)


@pytest.mark.parametrize("symmetry", range(8))
def test_each_symmetry_is_undone(symmetry):
    image = torch.arange(12.0).reshape(1, 3, 4)
    assert torch.equal(transform(transform(image, symmetry), undone(symmetry)), image)


@pytest.mark.parametrize("side", [40, 41, 67])
@pytest.mark.parametrize("options", [{}, {"stem": "resnet50", "depth": 1}, {"group": "C4"}])
def test_answer_is_that_of_turned_copies(options, side):
    model = network(**options).eval().double()
    images = torch.randn(2, 2, side, side, dtype=torch.float64)
    symmetries = C4 if options.get("group") == "C4" else range(8)
    with torch.no_grad():
        expected = model(images)
        assert expected.std() > 1e-6
        for symmetry in symmetries:
            assert (model(transform(images, symmetry)) - expected).abs().max() < 1e-9
        single = model.float()
        for symmetry in symmetries:
            assert (single(transform(images.float(), symmetry)) - expected).abs().max() < 1e-5


def test_turns_alone_tell_an_image_from_its_mirror_image():
    images = torch.randn(2, 2, 40, 40)
    with torch.no_grad():
        model = network(group="C4").eval()
        assert (model(images.flip(-1)) - model(images)).abs().max() > 1e-4


def test_maps_turn_with_the_image():
    torch.manual_seed(0)
    copies = SummedCopies(torch.nn.Conv2d(1, 3, 3, stride=2, padding=1), tuple(range(8))).double()
    images = torch.randn(2, 1, 20, 20, dtype=torch.float64)
    for symmetry in range(8):
        torch.testing.assert_close(copies(transform(images, symmetry)), transform(copies(images), symmetry))


def test_positions_are_the_same_for_exchanged_places_alone():
    grid = invariant_positions(5, 8).T.reshape(8, 5, 5)
    for symmetry in range(8):
        assert torch.equal(transform(grid, symmetry), grid)
    assert len({tuple(each) for each in grid.flatten(1).T.tolist()}) == 6


def test_what_makes_no_sense_is_refused():
    for options, says in (
        ({"width": 18}, "width is 18; positions of tokens take a multiple of 4"),
        ({"pretrained": True}, "pretrained weights are those of the stem resnet50"),
        ({"depth": -1}, "depth is -1"),
    ):
        with pytest.raises(ModelError, match=says):
            network(**options)
    with pytest.raises(ModelError, match="turned copies are of square images; got 40×48"):
        network()(torch.zeros(1, 2, 40, 48))
    with pytest.raises(ModelError, match="network equivariant-transformer takes images of at least 8 pixels a side"):
        network()(torch.zeros(1, 2, 7, 7))
