"""Networks that take columns of a catalogue beside an image."""

import pytest
import torch

from darklens.errors import ModelError
from darklens.models.registry import build_network, network_options

IMAGES, CATALOG = torch.rand(3, 2, 32, 32), torch.randn(3, 5)
SMALL = {"architecture": "resnet10t"}


def metadata(**options):
    return build_network("metadata", 2, 2, SMALL | options, catalog_features=5).eval()


@pytest.mark.parametrize(
    ("branches", "of_image", "of_catalog"), [("both", True, True), ("image", True, False), ("catalog", False, True)]
)
def test_branches_see_what_they_are_named_for(branches, of_image, of_catalog):
    network = metadata(branches=branches)
    with torch.no_grad():
        output = network(IMAGES, CATALOG)
        assert output.shape == (3, 2)
        assert (not torch.allclose(network(IMAGES.flip(0), CATALOG), output)) == of_image
        assert (not torch.allclose(network(IMAGES, CATALOG.flip(0)), output)) == of_catalog


def test_features_are_joined_before_the_last_layer():
    network = metadata(width=7)
    with torch.no_grad():
        joined = torch.cat([network.backbone(IMAGES), network.embedding(CATALOG)], dim=1)
        torch.testing.assert_close(network(IMAGES, CATALOG), joined @ network.head.weight.T + network.head.bias)
    assert network.head.in_features == network.backbone.num_features + 7


def test_attention_weighs_image_and_catalogue():
    network = build_network("attention-fusion", 2, 2, {}, catalog_features=5).eval()
    images, catalog = IMAGES.clone().requires_grad_(), CATALOG.clone().requires_grad_()
    network(images, catalog)[:, 1].sum().backward()
    assert images.grad.abs().sum() > 0
    assert catalog.grad.abs().sum() > 0
    # An image of its own does not see another's: rows of a batch are apart.
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES[:1], CATALOG[:1]), network(IMAGES, CATALOG)[:1], atol=1e-5, rtol=1e-4)
        assert network(torch.rand(1, 2, 45, 45), CATALOG[:1]).shape == (1, 2)


def test_number_of_inputs_is_not_for_recipes_to_say():
    assert "catalog_features" not in network_options("metadata")
    with pytest.raises(ModelError, match=r"unknown key network\.catalog_features"):
        build_network("metadata", 1, 2, {"catalog_features": 3}, catalog_features=3)


def test_networks_without_inputs_are_refused():
    with pytest.raises(
        ModelError, match=r"network metadata takes columns of the catalogue: name them by --inputs\.columns"
    ):
        build_network("metadata", 1, 2, SMALL)
    with pytest.raises(ModelError, match="tokens is 10, no multiple of heads, 4"):
        build_network("attention-fusion", 1, 2, {"tokens": 10}, catalog_features=1)
    with pytest.raises(ModelError, match="network compact takes images alone"):
        build_network("compact", 1, 2, {}, catalog_features=1)
    with pytest.raises(ModelError, match="takes inputs from the catalogue"):
        metadata()(IMAGES)
    assert build_network("metadata", 2, 2, SMALL | {"branches": "image"}).eval()(IMAGES).shape == (3, 2)
