"""Networks for super-resolution: parameters of the papers, any size and factor, and what they are before training."""

import pytest
import torch

from darklens.errors import ModelError
from darklens.models.edsr import EDSR
from darklens.models.flow import Flow
from darklens.models.registry import build_network
from darklens.models.rrdb import RRDBNet
from darklens.models.srcnn import SRCNN
from darklens.models.upscaling import prime_factors
from darklens.physics.degrading import bicubic


def parameters(network):
    return sum(each.numel() for each in network.parameters())


def test_parameters_are_those_of_the_papers():
    """Dong et al. 2014: 8,032 weights of 9-1-5; Lim et al. 2017: 1.37 and 40.7 million; Wang et al. 2018: 16.70 million."""
    assert sum(each.numel() for each in SRCNN(1, 1).parameters() if each.ndim > 1) == 8032
    with torch.device("meta"):
        assert round(parameters(EDSR(3, 3, 2, width=64, blocks=16, skip=False)) / 1e6, 2) == 1.37
        assert round(parameters(EDSR(3, 3, 2, width=256, blocks=32, skip=False)) / 1e6, 1) == 40.7
        published = RRDBNet(3, 3, 4, width=64, blocks=23, growth=32, upscaling="nearest", skip=False)
    assert round(parameters(published) / 1e6, 2) == 16.70


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["srcnn", "edsr", "rrdb", "mae-upconv", "nafnet"])
def test_untrained_networks_interpolate_images_of_any_size(name, scale):
    small = {"edsr": {"blocks": 1}, "rrdb": {"blocks": 1}, "nafnet": {"blocks": 1}}
    network = build_network(name, 2, 2, {"scale": scale, **small.get(name, {})}).eval()
    images = torch.randn(2, 2, 15, 18)
    with torch.no_grad():
        found = network(images)
    torch.testing.assert_close(found, bicubic(images, scale), atol=1e-5, rtol=1e-5)


def test_lens_residual_begins_with_the_rendered_lens():
    network = build_network("lens-residual", 4, 1, {"scale": 2, "width": 8, "blocks": 1}).eval()
    images = torch.randn(2, 4, 20, 20)
    torch.testing.assert_close(network(images), images[:, 3:])
    with pytest.raises(ModelError, match=r"with preprocessing.lens_model true and lens_fine 2"):
        build_network("lens-residual", 3, 1, {})


def test_flow_of_zero_velocity_draws_normal_pixels_and_learns_their_mean_and_spread():
    """Of targets that are the image's interpolation plus noise of 0.3, the likelihood teaches that spread."""
    torch.manual_seed(0)
    network = Flow(1, 4, width=8, blocks=1, flow_width=8, flow_blocks=1, samples=5, steps=2)
    images = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert network.sample(images).std() > 0
        torch.testing.assert_close(network.moments(images)[0], bicubic(images, 2))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(150):
        images = torch.randn(16, 1, 8, 8)
        loss = network.sampling_loss(images, bicubic(images, 2) + 0.3 * torch.randn(16, 1, 16, 16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float(network.moments(images)[1].exp().mean()) == pytest.approx(0.3, rel=0.15)
        drawn = network.sample(images) - bicubic(images, 2)
    assert float(drawn.std()) == pytest.approx(0.3, rel=0.25)


def test_factors():
    assert [prime_factors(n) for n in (2, 3, 4, 6, 12)] == [[2], [3], [2, 2], [2, 3], [2, 2, 3]]
    for name in ("srcnn", "edsr", "rrdb", "mae-upconv", "nafnet"):
        with pytest.raises(ModelError, match="2 to 16; got 1"):
            build_network(name, 1, 1, {"scale": 1})
    with pytest.raises(ModelError, match="no multiple of 4"):
        build_network("flow", 1, 1, {})
