import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from darklens.errors import ModelError
from darklens.models.backbones import timm_network

NETWORK = "test_resnet"
"""A network of timm with 0.4 million weights; its last layer is ``fc``."""


def state(**changes):
    """Weights of the network for images in colour and 1000 classes, some of them changed."""
    torch.manual_seed(3)
    return timm.create_model(NETWORK).state_dict() | changes


def assert_weights(network, expected):
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in expected.items() if not name.startswith("fc"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_of_a_file_are_taken_but_for_the_classifier(wrapped, tmp_path):
    expected = state()
    torch.save({"state_dict": expected} if wrapped else expected, tmp_path / "w.pth")
    network = timm_network(3, 5, NETWORK, weights=str(tmp_path / "w.pth"), dropout=0.25)
    assert_weights(network, expected)
    assert network.fc.weight.shape == (5, 96)
    assert network.drop_rate == 0.25


def test_weights_in_colour_are_summed_for_grey_images(tmp_path):
    expected = state()
    save_file({name: value.contiguous() for name, value in expected.items()}, tmp_path / "w.safetensors")
    network = timm_network(1, 5, NETWORK, weights=str(tmp_path / "w.safetensors"))
    grey = {"conv1.0.weight": expected["conv1.0.weight"].sum(1, keepdim=True)}
    assert_weights(network, expected | grey)


def test_weights_of_another_code_base_are_taken_in_their_order(tmp_path):
    expected = state()
    torch.save({f"theirs.{k}": value for k, value in enumerate(expected.values())}, tmp_path / "w.pth")
    assert_weights(timm_network(3, 1000, NETWORK, weights=str(tmp_path / "w.pth")), expected)


def test_weights_that_are_missing_or_of_another_shape_are_counted(tmp_path):
    changed = state(**{"conv1.1.weight": torch.zeros(17), "conv1.0.weight": torch.zeros(16, 2, 3, 3)})
    torch.save(changed, tmp_path / "w.pth")
    every = len(changed) - 2
    message = (
        rf"w\.pth: 2 of {every} tensors of {NETWORK} are missing or of another shape, the first is conv1\.0\.weight"
    )
    with pytest.raises(ModelError, match=message):
        timm_network(3, 5, NETWORK, weights=str(tmp_path / "w.pth"))
    # Of as many tensors, some with the same names: none is taken by its order.
    renamed = {name.replace("conv1.1", "other"): value for name, value in state().items()}
    torch.save(renamed, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"5 of {every} tensors"):
        timm_network(3, 5, NETWORK, weights=str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": torch.zeros(1), "b": 3}, {"state_dict": {"epoch": 3}}])
def test_files_of_something_else_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: expected a dict of tensors"):
        timm_network(3, 5, NETWORK, weights=str(tmp_path / "w.pth"))


def test_files_whose_reading_would_run_code_are_refused(tmp_path):
    torch.save({"network": nn.Linear(1, 1)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"w\.pth: cannot be read as weights: .*[Ww]eights"):
        timm_network(3, 5, NETWORK, weights=str(tmp_path / "w.pth"))


def test_head_takes_the_features_of_the_backbone(tmp_path):
    torch.save(state(), tmp_path / "w.pth")
    network = timm_network(3, 5, NETWORK, head="normalized", weights=str(tmp_path / "w.pth"), dropout=0.4)
    assert [type(layer) for layer in network.head] == [nn.BatchNorm1d, nn.Dropout, nn.Linear]
    assert network.head[1].p == 0.4
    assert network.head[2].weight.shape == (5, 96)
    assert_weights(network.backbone, state())
    assert network.backbone.drop_rate == 0
    images = torch.randn(2, 3, 32, 32)
    features = network.eval().backbone(images)
    assert features.shape == (2, 96)
    torch.testing.assert_close(network(images), network.head(features))


def test_arguments_reach_the_model_of_timm():
    network = timm_network(2, 5, NETWORK, arguments={"global_pool": "max", "in_chans": 4})
    assert network.conv1[0].weight.shape[1] == 4
    assert network.global_pool.pool_type == "max"


def test_networks_are_not_pretrained_unless_told(monkeypatch):
    made = []

    def create(architecture, **options):
        made.append((architecture, options))
        return nn.Identity()

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr("darklens.models.backbones.pretrained_file", lambda architecture: f"/cache/{architecture}")
    timm_network(1, 5, NETWORK)
    timm_network(1, 5, NETWORK, pretrained=True, dropout=0.5)
    monkeypatch.setattr("darklens.models.backbones.pretrained_file", lambda architecture: None)
    timm_network(3, 2, NETWORK, pretrained=True)
    assert made == [
        (NETWORK, {"in_chans": 1, "num_classes": 5, "drop_rate": 0.0, "pretrained": False}),
        (
            NETWORK,
            {
                "in_chans": 1,
                "num_classes": 5,
                "drop_rate": 0.5,
                "pretrained": True,
                "pretrained_cfg_overlay": {"file": f"/cache/{NETWORK}"},
            },
        ),
        (NETWORK, {"in_chans": 3, "num_classes": 2, "drop_rate": 0.0, "pretrained": True}),
    ]


def test_weights_out_of_reach_are_said_with_the_place_of_the_cache(monkeypatch):
    def unreachable(architecture):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("darklens.models.backbones.pretrained_file", unreachable)
    monkeypatch.setenv("HF_HOME", "/large/disk")
    with pytest.raises(ModelError, match=rf"weights of {NETWORK} cannot be fetched \(ConnectionError\).* /large/disk "):
        timm_network(1, 5, NETWORK, pretrained=True)
    monkeypatch.delenv("HF_HOME")
    with pytest.raises(ModelError, match="bring the hub's cache along"):
        timm_network(1, 5, NETWORK, pretrained=True)


def test_unknown_architecture_is_refused_with_four_that_are_near():
    with pytest.raises(ModelError) as raised:
        timm_network(1, 5, "resnet19")
    near = str(raised.value).removeprefix("timm has no model 'resnet19'; near are ").split(", ")
    assert len(near) == 4
    assert set(near) <= set(timm.list_models())
    with pytest.raises(ModelError, match=r"^timm has no model '0123456789'$"):
        timm_network(1, 5, "0123456789")


def test_latent_features_stand_before_the_last_layer(tmp_path):
    torch.save(state(), tmp_path / "w.pth")
    network = timm_network(3, 2, NETWORK, weights=str(tmp_path / "w.pth"), dropout=0.5, latent=7).eval()
    assert_weights(network.backbone.backbone, {k: v for k, v in state().items() if not k.startswith("fc")})
    images = torch.randn(2, 3, 32, 32)
    assert network.features(images).shape == (2, 7)
    torch.testing.assert_close(network(images), network.head(network.features(images)))
    with pytest.raises(ModelError, match=r"latent 7 is a head of its own; leave out network\.head hidden"):
        timm_network(3, 2, NETWORK, head="hidden", latent=7)
