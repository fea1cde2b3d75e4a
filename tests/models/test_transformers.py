"""CvT, CrossFormer and CCT: the sizes of their papers, images of any size, and what attends to what."""

import pytest
import torch
from torch import nn

from darklens.errors import ModelError
from darklens.models.cct import LearnedPositions, SequencePool
from darklens.models.crossformer import CrossScaleEmbedding, GroupedAttention, PositionBias
from darklens.models.cvt import ConvolutionalAttention, ConvolutionalStage
from darklens.models.registry import build_network, count_parameters
from darklens.models.sections import sections, thaw_epochs
from darklens.models.transformer import Residual, SelfAttention, attend, drop_paths

CCT_7_3X1 = {"width": 256, "depth": 7, "heads": 4, "mlp_ratio": 2.0, "kernel": 3, "convolutions": 1, "grid": 16}
SMALL = {
    "cvt": {"widths": [8, 12, 16], "depths": [1, 2, 2], "heads": [1, 3, 4]},
    "crossformer": {"widths": [16, 16, 24, 32], "depths": [1, 1, 2, 2], "heads": [2, 4, 6, 8], "group": 3},
    "cct": {"width": 24, "depth": 3, "heads": 2, "mlp_ratio": 2.0, "grid": 4},
}


@pytest.mark.parametrize(
    ("name", "options", "outputs", "published"),
    [
        ("cvt", {}, 1000, 19.98e6),
        ("crossformer", {}, 1000, 27.8e6),
        ("cct", {}, 1000, 22.36e6),
        ("cct", CCT_7_3X1, 10, 3.76e6),
    ],
    ids=["CvT-13", "CrossFormer-T", "CCT-14/7x2", "CCT-7/3x1"],
)
def test_parameters_are_as_many_as_in_the_papers(name, options, outputs, published):
    with torch.device("meta"):
        network = build_network(name, 3, outputs, options)
    assert count_parameters(network) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_any_channels_and_sizes_are_taken(name, channels):
    network = build_network(name, channels, 4, SMALL[name]).eval()
    with torch.inference_mode():
        for height, width in ((64, 64), (101, 101), (32, 75)):
            output = network(torch.randn(2, channels, height, width))
            assert output.shape == (2, 4)
            assert output.isfinite().all()


@pytest.mark.parametrize(("name", "least"), [("cvt", 16), ("crossformer", 32), ("cct", 16)])
def test_images_that_are_too_small_are_refused(name, least):
    network = build_network(name, 1, 3, SMALL[name]).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, least, least)).shape == (1, 3)
        with pytest.raises(
            ModelError, match=rf"network {name} takes images of at least {least} pixels a side; got 40×{least - 1}\."
        ):
            network(torch.zeros(1, 1, 40, least - 1))


@pytest.mark.parametrize("name", SMALL)
def test_gradients_reach_every_parameter(name):
    """But for what is the same for all keys of a query, to which the softmax of attention is blind, and the queries of
    the image's tokens in CvT's last block, which only the class token leaves."""
    torch.manual_seed(0)
    network = build_network(name, 2, 3, SMALL[name]).double()
    network(torch.randn(3, 2, 100, 100, dtype=torch.float64)).square().sum().backward()
    largest = {parameter: float(p.grad.abs().max()) for parameter, p in network.named_parameters()}
    blind = ("key.dense.bias", "key.norm.bias", "position_bias.layers.6.bias")
    if name == "cvt":
        blind += tuple(
            f"stage3.attention.1.branch.query.{n}" for n in ("convolution.weight", "norm.weight", "norm.bias")
        )
    assert not [each for each, value in largest.items() if value < 1e-12 and not each.endswith(blind)]


@pytest.mark.parametrize("name", SMALL)
def test_same_weights_and_images_give_the_same_answer_in_training_and_evaluation(name):
    """Nothing is left out at random by default."""
    network = build_network(name, 1, 3, SMALL[name]).train()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    images = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(network(images), network.eval()(images))


@pytest.mark.parametrize("name", SMALL)
def test_blocks_are_left_out_and_features_dropped_in_training_only(name):
    torch.manual_seed(0)
    images = torch.randn(4, 1, 64, 64)
    for option in ("dropout", "drop_path"):
        network = build_network(name, 1, 3, SMALL[name] | {option: 0.5})
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        assert not torch.equal(network(images), network(images))
        network.eval()
        assert torch.equal(network(images), network(images))


@pytest.mark.parametrize(("name", "count"), [("cvt", 4), ("crossformer", 6), ("cct", 7)])
def test_stages_and_blocks_are_sections(name, count):
    network = build_network(name, 1, 3, SMALL[name])
    found = sections(network)
    assert sorted(n for names in found for n in names) == sorted(n for n, _ in network.named_parameters())
    assert found[0] == ["head.1.weight", "head.1.bias"]
    assert len(found) == count
    assert thaw_epochs(network, 10) == sorted(thaw_epochs(network, 10))


@pytest.mark.parametrize("name", SMALL)
def test_heads_that_do_not_divide_the_channels_are_refused(name):
    options = {"width": 10, "heads": 3} if name == "cct" else {"widths": [10], "depths": [1], "heads": [3]}
    with pytest.raises(ModelError, match="10 channels cannot be divided among 3 heads"):
        build_network(name, 1, 3, SMALL[name] | options)
    if name != "cct":
        with pytest.raises(ModelError, match=f"network {name} cannot be made of"):
            build_network(name, 1, 3, {"widths": [8, 16], "depths": [1], "heads": [2]})


@pytest.mark.parametrize("name", SMALL)
def test_half_precision_is_near_to_single(name):
    torch.manual_seed(0)
    network = build_network(name, 1, 3, SMALL[name]).eval()
    images = torch.randn(2, 1, 72, 72)
    with torch.inference_mode():
        exact = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(network(images).float(), exact, rtol=0.05, atol=0.05)


def test_residual_leaves_out_its_branch_for_a_share_of_the_images():
    torch.manual_seed(0)
    block = Residual(4, nn.Linear(4, 4), 0.25)
    x = torch.randn(4000, 3, 4)
    added = block(x) - x
    kept = added.abs().amax((1, 2)) > 0
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=0.03)
    torch.testing.assert_close(added[kept] * 0.75, (block.eval()(x) - x)[kept], rtol=1e-4, atol=1e-5)
    assert drop_paths(3, 0.2) == [0, 0.1, 0.2]
    assert drop_paths(1, 0.2) == [0]


def test_attention_is_a_mean_weighted_by_matching_keys():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 5, 6), torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    bias = torch.randn(1, 2, 5, 4)
    expected = torch.empty(2, 5, 6)
    for head in range(2):
        part = slice(3 * head, 3 * head + 3)
        logits = query[..., part] @ key[..., part].transpose(1, 2) / 3**0.5 + bias[:, head]
        expected[..., part] = logits.softmax(-1) @ value[..., part]
    torch.testing.assert_close(attend(query, key, value, 2, bias), expected)


@pytest.mark.parametrize("distant", [False, True])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 16), (5, 7)])
def test_tokens_attend_to_those_of_their_group_alone(distant, height, width):
    """Groups of at most 7×7: windows, or tokens as far apart as there are groups."""
    torch.manual_seed(0)
    layer = GroupedAttention(8, 2, 7, distant=distant)
    x = torch.randn(1, height, width, 8, requires_grad=True)
    output = layer(x)
    assert output.shape == x.shape
    rows, columns = -(-height // 7), -(-width // 7)
    high, wide = -(-height // rows), -(-width // columns)
    grid = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"))
    steps = torch.tensor([rows, columns] if distant else [high, wide])[:, None, None]
    groups = grid % steps if distant else grid // steps
    for i, j in ((0, 0), (height - 1, width - 1), (height // 2, 1)):
        (gradient,) = torch.autograd.grad(output[0, i, j].sum(), x, retain_graph=True)
        seen = gradient[0].abs().amax(-1) > 0
        assert torch.equal(seen, (groups == groups[:, i, j][:, None, None]).all(0))


def test_padding_of_the_last_group_is_not_attended_to():
    """Of 9×16 tokens in windows of 5×6, the last window has 4×4."""
    torch.manual_seed(0)
    layer = GroupedAttention(8, 2, 7, distant=False)
    x = torch.randn(2, 9, 16, 8)
    alone = layer.attention(x[:, 5:, 12:].flatten(1, 2), layer.position_bias(4, 4)[None])
    torch.testing.assert_close(layer(x)[:, 5:, 12:].flatten(1, 2), alone)
    apart = GroupedAttention(8, 2, 7, distant=True)
    chosen = x[:, 1::2, 2::3]
    alone = apart.attention(chosen.flatten(1, 2), apart.position_bias(4, 5)[None])
    torch.testing.assert_close(apart(x)[:, 1::2, 2::3].flatten(1, 2), alone)


def test_position_bias_is_a_function_of_the_offset():
    torch.manual_seed(0)
    module = PositionBias(16, 3)
    bias = module(3, 4).unflatten(1, (3, 4)).unflatten(3, (3, 4))
    for (y, x), (v, u) in (((0, 0), (2, 3)), ((2, 1), (0, 3)), ((1, 1), (1, 1))):
        expected = module.layers(torch.tensor([float(y - v), float(x - u)]))
        torch.testing.assert_close(bias[:, y, x, v, u], expected)


def test_embeddings_of_all_scales_have_one_centre():
    """A pixel at the middle of a token's patch is seen by all its scales, one 10 pixels off by the larger two."""
    layer = CrossScaleEmbedding(1, 16, (4, 8, 16, 32), 4)
    assert [c.out_channels for c in layer.convolutions] == [8, 4, 2, 2]
    token = 8
    middle = 4 * token + 2
    image = torch.zeros(1, 1, 64, 64, requires_grad=True)
    for convolution, half in zip(layer.convolutions, (2, 4, 8, 16), strict=True):
        (gradient,) = torch.autograd.grad(convolution(image)[0, :, token, token].sum(), image)
        rows = gradient[0, 0].abs().amax(1).nonzero().flatten()
        assert (int(rows.min()), int(rows.max())) == (middle - half, middle + half - 1)


def test_keys_of_a_convolution_are_a_quarter_and_the_class_token_is_kept():
    torch.manual_seed(0)
    layer = ConvolutionalAttention(6, 2)
    others, image = torch.randn(2, 1, 6), torch.randn(2, 6, 8, 8)
    assert layer.query(others, image).shape == (2, 65, 6)
    assert layer.key(others, image).shape == (2, 17, 6)
    torch.testing.assert_close(layer.value(others, image)[:, 0], layer.value.dense(others)[:, 0])
    x = torch.cat([others, image.flatten(2).transpose(1, 2)], dim=1)
    assert layer(x, 8, 8).shape == x.shape


def test_last_stage_puts_out_the_class_token_and_others_their_grid():
    grid = ConvolutionalStage(3, 8, 2, [0.0], patch=(7, 4, 2), class_token=False)
    assert grid(torch.randn(2, 3, 64, 48)).shape == (2, 8, 16, 12)
    last = ConvolutionalStage(8, 12, 2, [0.0, 0.0], patch=(3, 2, 1), class_token=True).eval()
    output = last(torch.randn(2, 8, 16, 12))
    assert output.shape == (2, 12)
    torch.testing.assert_close(output.mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_learned_positions_are_interpolated_to_other_grids():
    positions = LearnedPositions(2, 4)
    with torch.no_grad():
        positions.table.copy_(torch.arange(4.0).expand(1, 2, 4, 4))
    same = positions(torch.ones(1, 2, 4, 4))
    torch.testing.assert_close(same[0, :, 0], 1 + torch.arange(4.0).repeat(4))
    larger = positions(torch.zeros(1, 2, 8, 8)).unflatten(1, (8, 8))[0, :, :, 0]
    torch.testing.assert_close(larger[0], larger[-1])
    torch.testing.assert_close(larger[0, 3:5].mean(), torch.tensor(1.5))
    assert (larger[0].diff() > 0).all()


def test_sequence_pool_weights_tokens_by_their_importance():
    pool = SequencePool(2)
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0]]])
    with torch.no_grad():
        pool.importance.weight.zero_()
        torch.testing.assert_close(pool(x), torch.tensor([[2.0, 1.0]]))
        pool.importance.weight.copy_(torch.tensor([[0.0, 50.0]]))
        torch.testing.assert_close(pool(x), torch.tensor([[3.0, 2.0]]))


def test_weights_are_drawn_small():
    layer = build_network("cct", 1, 3, SMALL["cct"] | {"width": 128}).block1[0].branch
    assert isinstance(layer, SelfAttention)
    assert float(layer.query_key_value.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not layer.output.bias.any()
