"""Masked autoencoder and its encoder: what is hidden stays hidden, sizes that fit, errors by hand."""

import numpy as np
import pytest
import torch

from darklens.errors import ModelError
from darklens.models.encoders import encoder_weights, load_encoder
from darklens.models.masked import MaskedAutoencoder, errors
from darklens.models.patches import PatchEncoder, positions
from darklens.models.registry import build_network, refuses_constant

SMALL = {"width": 16, "depth": 2, "heads": 2, "patch": 4}


def autoencoder(**options):
    torch.manual_seed(0)
    return MaskedAutoencoder(2, 2, **(SMALL | {"decoder_width": 16} | options))


@pytest.mark.parametrize("masking", ["informative", "random", "pixels"])
def test_what_is_rebuilt_depends_on_nothing_hidden(masking):
    model = autoencoder(masking=masking)
    images = torch.randn(3, 2, 16, 24)
    hidden = model.draw(images)
    assert hidden.shape == (3, 1, 16, 24)
    assert hidden.flatten(1).float().mean(1).tolist() == [0.75] * 3
    others = torch.where(hidden, torch.randn_like(images), images)
    torch.testing.assert_close(model.rebuild(images, hidden), model.rebuild(others, hidden))
    shown = torch.where(hidden, images, images + 1)
    assert not torch.allclose(model.rebuild(images, hidden), model.rebuild(shown, hidden))


def test_whole_patches_are_hidden_unless_masking_is_of_pixels():
    images = torch.randn(2, 2, 16, 16)
    of_patches = autoencoder(masking="random").draw(images).unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2)
    assert (of_patches.all(-1) | ~of_patches.any(-1)).all()
    of_pixels = autoencoder(masking="pixels").draw(images).unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2)
    assert not (of_pixels.all(-1) | ~of_pixels.any(-1)).all()


def test_informative_masking_hides_the_brightest_patch_more_often():
    images = torch.zeros(4000, 2, 16, 16)
    images[:, :, 4:8, 8:12] = 1
    torch.manual_seed(2)
    hidden = autoencoder(masked=1 / 16).draw(images)
    expected = 1 / (1 + 15 * 0.1)  # one patch of weight 1 among fifteen of weight 0.1
    found = float(hidden[:, 0, 4, 8].float().mean())
    assert abs(found - expected) < 5 * (expected * (1 - expected) / 4000) ** 0.5


def test_errors_are_those_of_hidden_pixels():
    rng = np.random.default_rng(0)
    images, rebuilt = rng.normal(size=(2, 2, 3, 2, 4))
    hidden = rng.random((2, 1, 2, 4)) < 0.5
    found = errors(*map(torch.from_numpy, (images, rebuilt, hidden)))
    for n in range(2):
        mask = np.broadcast_to(hidden[n], (3, 2, 4))
        mean = np.array([images[n, c][~hidden[n, 0]].mean() for c in range(3)])[:, None, None]
        expected = [np.square(made - images[n])[mask].mean() for made in (rebuilt[n], np.broadcast_to(mean, (3, 2, 4)))]
        np.testing.assert_allclose(found[n], expected, rtol=1e-5)


@pytest.mark.parametrize("masking", ["random", "pixels"])
def test_trained_model_always_has_the_same_error_and_hides_each_part_three_times(masking):
    model = autoencoder(masking=masking).eval()
    images = torch.randn(2, 2, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(images), model(images))
        one = model(images[:1])
        torch.testing.assert_close(model(images)[:1], one)
        masks = model.regular_masks(images)
        assert (sum(mask.int() for mask in masks) == 3).all()
        parts = torch.stack([errors(images, model.rebuild(images, mask), mask) for mask in masks])
        torch.testing.assert_close(model(images), parts.mean(0))
        assert model.reconstruct(images).shape == images.shape
    model.train()
    assert not torch.equal(model(images), model(images)), "in training, other parts are hidden each time"


def test_training_rebuilds_a_simple_image():
    model = autoencoder(masking="random")
    y, x = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
    images = torch.stack([x + y, x - y]).expand(8, -1, -1, -1).contiguous()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(images)[:, 0].mean().backward()
        optimizer.step()
    error, constant = model.eval()(images).mean(0).tolist()
    assert error < 0.2 * constant


def test_encoder_takes_any_multiple_and_knows_places():
    torch.manual_seed(0)
    encoder = PatchEncoder(1, **SMALL)
    images = torch.randn(2, 1, 16, 24)
    every = encoder.tokens(images)
    assert every.shape == (2, 24, 16)
    assert encoder.tokens(torch.randn(2, 1, 32, 8)).shape == (2, 16, 16)
    assert not torch.allclose(encoder(images), encoder(images.roll(4, -1)))
    chosen = torch.tensor([[3, 0], [5, 23]])
    first = encoder.embedding(images).flatten(2).transpose(1, 2) + positions(4, 6, 16)
    seen = first.gather(1, chosen[..., None].expand(-1, -1, 16))
    for block in encoder.blocks:
        seen = block(seen)
    torch.testing.assert_close(encoder.tokens(images, chosen), encoder.norm(seen))


def test_positions_are_sines_and_cosines_of_row_and_column():
    found = positions(2, 3, 8)
    rates = [1, 1e-2]
    expected = [[f(a * r) for a in (y, x) for f in (np.sin, np.cos) for r in rates] for y in range(2) for x in range(3)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "says"),
    [
        (61, "images of 61×61 pixels are no multiple of a patch of 8×8: crop them to 56 (--preprocessing.crop 56), bring "
             "them to 64 (--preprocessing.resize 64)"),
        (60, "or choose --network.patch 6 or 5 or 4"),
        (5, "images of 5×5 pixels are smaller than a patch of 8×8: bring them to 8 (--preprocessing.resize 8)"),
    ],
)  # fmt: skip
def test_images_that_are_no_multiple_are_told_what_fits(side, says):
    for name, outputs in (("patch-transformer", 3), ("masked-autoencoder", 2)):
        network = build_network(name, 1, outputs, SMALL | {"patch": 8})
        with pytest.raises(ModelError) as raised:
            network(torch.zeros(1, 1, side, side))
        assert says in str(raised.value)


def test_options_that_make_no_sense_are_refused():
    for options, says in (
        ({"width": 18}, "width is 18; positions of patches take a multiple of 4"),
        ({"patch": 6}, "patch is 6; a decoder that doubles the side takes 2, 4, 8, 16 or 32"),
        ({"masked": 1.0}, "masked is the fraction of an image that is hidden, above 0 and below 1; got 1.0"),
        ({"heads": 3}, "16 channels cannot be divided among 3 heads of attention"),
    ):
        with pytest.raises(ModelError, match=says):
            autoencoder(**options)
    with pytest.raises(ModelError, match="it is for the task pretrain with method mae"):
        build_network("masked-autoencoder", 1, 3, {})
    with pytest.raises(ModelError, match="are one patch of 4×4, and nothing would be left to see"):
        autoencoder().eval()(torch.zeros(1, 2, 4, 4))


def test_only_informative_masking_refuses_constant_images():
    assert refuses_constant("masked-autoencoder", {})
    assert not refuses_constant("masked-autoencoder", {"masking": "random"})
    assert not refuses_constant("patch-transformer", {})


def test_encoder_goes_into_a_network_with_a_head():
    pretrained = autoencoder()
    network = build_network("patch-transformer", 2, 3, SMALL | {"hidden": [8]})
    head = network.head[0].weight.clone()
    load_encoder(network, pretrained, "here")
    images = torch.randn(2, 2, 16, 16)
    torch.testing.assert_close(network.features(images), pretrained.features(images))
    assert torch.equal(network.head[0].weight, head)


def test_encoder_that_does_not_fit_is_named_and_nothing_changed():
    network = build_network("patch-transformer", 2, 3, SMALL | {"width": 32})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ModelError) as raised:
        load_encoder(network, autoencoder(), "runs/mae")
    assert str(raised.value).startswith(
        "runs/mae: its encoder, of MaskedAutoencoder, does not fit this recipe's network, Headed: embedding.weight is "
        "16×2×4×4 there and 32×2×4×4 here, and "
    )
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(ModelError, match=r"blocks\.1\.0\.norm\.weight is missing in it"):
        load_encoder(build_network("patch-transformer", 2, 3, SMALL), autoencoder(depth=1), "here")
    with pytest.raises(ModelError, match=r"blocks\.1\.0\.norm\.weight has no place here"):
        load_encoder(build_network("patch-transformer", 2, 3, SMALL | {"depth": 1}), autoencoder(), "here")


@pytest.mark.parametrize(
    ("name", "options", "head"),
    [
        ("compact", {"widths": [8, 8], "blocks": [1, 1]}, "head."),
        ("equivariant", {"group": "C4", "widths": [2, 2]}, "head."),
        ("timm", {"architecture": "resnet10t"}, "fc."),
    ],
)
def test_encoder_of_other_networks_is_all_but_their_last_section(name, options, head):
    network = build_network(name, 1, 3, options)
    left = set(network.state_dict()) - set(encoder_weights(network))
    assert left
    assert all(each.startswith(head) for each in left)
    assert not any(each.startswith(head) and "weight" in each for each in encoder_weights(network))
