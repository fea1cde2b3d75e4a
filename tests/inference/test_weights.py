"""Weights of strangers: a network is built only if they are of it."""

import json

import numpy as np
import pytest
import torch
from fuzz import make_model
from safetensors.torch import load_file, save_file

from darklens.errors import ModelError
from darklens.inference.config import read_config
from darklens.inference.model import load_model
from darklens.inference.weights import load_network


@pytest.fixture
def folder(tmp_path):
    return make_model(tmp_path / "model", lens=False)


def rewrite(folder, change):
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def load(folder):
    return load_network(folder, read_config(folder))


def test_network_has_the_weights_of_the_file_and_is_ready(folder):
    network, outliers = load(folder)
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert torch.equal(network.state_dict()[name], tensor)
    assert not network.training
    assert not any(p.is_meta for p in network.parameters())
    assert outliers.feature_mean.shape == (8,)
    (folder / "outliers.safetensors").unlink()
    assert load(folder)[1] is None


def test_weights_that_are_missing_odd_or_too_many_are_named(folder):
    begins = r"model: its weights are damaged, or not of this network: "
    name = next(iter(load(folder)[0].state_dict()))
    tensor = load_file(folder / "model.safetensors")[name]
    rewrite(folder, lambda state: state.update({name: torch.zeros(2, 3)}))
    shape = str(tuple(tensor.shape))
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert str(caught.value).endswith(f"{name} is of shape (2, 3), the network's of {shape}")
    rewrite(folder, lambda state: state.pop(name))
    with pytest.raises(ModelError, match=begins + f"there is no {name}$"):
        load(folder)
    rewrite(folder, lambda state: state.update({name: tensor, "strange.weight": torch.zeros(1)}))
    with pytest.raises(ModelError, match=begins + r"the network has no strange\.weight$"):
        load(folder)
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"model/model\.safetensors: its weights are damaged, or not of this network"):
        load(folder)


@pytest.mark.parametrize(("number", "message"), [(4096, "not of this network"), (4097, "has an option 4097, more than"),
                                                 (-4097, "has an option -4097, more than")])  # fmt: skip
def test_options_are_at_most_a_number_or_what_the_file_holds(folder, number, message):
    content = json.loads((folder / "config.json").read_text())
    content["network"]["widths"] = [4, number]
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message if number > 0 else "option -4097"):
        load(folder)
    rewrite(folder, lambda state: state.update({"long": torch.zeros(1, 5000)}))
    with pytest.raises(ModelError, match=r"not of this network|cannot be built"):
        load(folder)


OWN = """
import torch

class Net(torch.nn.Module):
    def __init__(self, in_channels, outputs, more=0):
        super().__init__()
        self.layer = torch.nn.Conv2d(in_channels, outputs + more, 14)
    def forward(self, images):
        return self.layer(images).flatten(1)

class Fails(Net):
    def forward(self, images):
        raise ValueError("no such size")
"""


def own(folder, name, more=0):
    """Make the network of a model one of its own, of two outputs and more."""
    (folder / "net.py").write_text(OWN)
    content = json.loads((folder / "config.json").read_text())
    content["network"] = {"name": f"{folder}/net.py:{name}", "more": more}
    (folder / "config.json").write_text(json.dumps(content))
    state = {"layer.weight": torch.randn(2 + more, 1, 14, 14), "layer.bias": torch.tensor([0.5] * (2 + more))}
    save_file(state, folder / "model.safetensors")
    (folder / "outliers.safetensors").unlink(missing_ok=True)
    return state


def test_own_network_is_checked_by_what_it_puts_out(folder):
    state = own(folder, "Net")
    assert torch.equal(load(folder)[0].layer.weight, state["layer.weight"])
    found = load_model(folder, trust_code=True).predict(np.full((1, 16, 16), 9.0))
    # The square root of 9, less the centre of 3, is 0: what is left are the equal biases.
    np.testing.assert_allclose(found.probabilities, [[0.5, 0.5]], atol=1e-6)
    own(folder, "Net", more=1)
    with pytest.raises(ModelError, match=r"model: its network puts out \(1, 3\); expected \(1, 2\)"):
        load(folder)
    own(folder, "Fails")
    with pytest.raises(ModelError, match=r"model: its network cannot take images of its size: .*no such size"):
        load(folder)
    save_file({"other": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="model: its weights are damaged, or not of this network"):
        load(folder)


def test_score_of_a_network_without_a_linear_layer_has_one_feature(folder):
    tensors = load_file(folder / "outliers.safetensors")
    own(folder, "Net")
    few = {"feature_mean": torch.zeros(1), "components": torch.zeros(1, 1), "mean": torch.zeros(7)}
    save_file(tensors | few | {"precision": torch.eye(7)}, folder / "outliers.safetensors")
    assert load(folder)[1].feature_mean.shape == (1,)
    save_file(tensors, folder / "outliers.safetensors")
    with pytest.raises(
        ModelError, match=r"outliers\.safetensors: damaged: feature_mean is of shape \(8,\); expected \(1,\)"
    ):
        load(folder)
