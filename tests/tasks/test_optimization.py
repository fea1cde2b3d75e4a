"""Learning rates over time and optimisers, against numbers on paper."""

import math

import pytest
import torch
from torch import nn

from darklens.errors import RecipeError
from darklens.tasks import muon as own_muon
from darklens.tasks.optimization import learning_rate_factor, make_optimizer
from darklens.tasks.options import OptimizerOptions, ScheduleOptions
from darklens.training.recipe import load_recipe


def of_steps(options, steps, epochs):
    """The factor by the number of a step."""
    factor = learning_rate_factor(options, epochs)
    return lambda step: factor(step / steps, 1 / steps)


def test_cosine_rises_linearly_and_falls_to_nothing():
    factor = of_steps(ScheduleOptions("cosine", warmup=0.1), steps=100, epochs=10)
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert factor(10) == pytest.approx(1.0)
    assert factor(32) == pytest.approx(0.5 * (1 + math.cos(math.pi * 22 / 90)))
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0.0)
    assert factor(130) == pytest.approx(0.0), "a step too many does not rise again"


def test_step_falls_every_so_many_epochs_and_constant_never():
    factor = of_steps(ScheduleOptions("step", step_epochs=2, step_factor=0.5), steps=60, epochs=6)
    assert [factor(step) for step in (0, 19, 20, 39, 40)] == [1, 1, 0.5, 0.5, 0.25]
    assert of_steps(ScheduleOptions("step"), steps=60, epochs=6)(59) == 1, "eight epochs are never over"
    constant = of_steps(ScheduleOptions("constant"), steps=60, epochs=6)
    assert {constant(step) for step in (0, 30, 59)} == {1.0}


@pytest.mark.parametrize("epochs", [1, 2, 10, 120])
def test_step_falls_after_equal_parts_of_any_training(epochs):
    factor = of_steps(ScheduleOptions("step", step_parts=3, step_factor=0.1), steps=60, epochs=epochs)
    expected = {0: 1, 19: 1, 20: 0.1, 39: 0.1, 40: 0.01, 59: 0.01, 60: 0.01}
    assert {step: factor(step) for step in expected} == pytest.approx(expected)
    if epochs == 120:
        published = of_steps(ScheduleOptions("step", step_epochs=40, step_factor=0.1), steps=60, epochs=epochs)
        assert [factor(step) for step in range(60)] == [published(step) for step in range(60)]


def test_rate_of_lanusse_falls_twice_however_short_the_training_is():
    recipe = load_recipe("finding/lanusse", {"trainer.epochs": 3})
    factor = of_steps(recipe.schedule, steps=30, epochs=recipe.trainer.epochs)
    assert [factor(step) for step in (0, 10, 29)] == pytest.approx([1, 0.1, 0.01])


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Muon"])
def test_weight_decay_spares_biases_and_frozen_weights_are_left_out(name):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(4, 3))
    network[2].weight.requires_grad_(False)
    made = make_optimizer(OptimizerOptions(name, lr=0.02, weight_decay=0.3), network)
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    assert decays == {
        id(network[0].weight): 0.3, id(network[0].bias): 0.0, id(network[1].weight): 0.0, id(network[1].bias): 0.0,
        id(network[2].bias): 0.0,
    }  # fmt: skip
    assert {group["lr"] for group in made.param_groups} == {0.02}


def test_first_step_of_sgd_is_nesterovs():
    """The first step of Nesterov momentum m is lr (1 + m) times the gradient (Sutskever et al. 2013)."""
    network = nn.Linear(3, 1, bias=False)
    before = network.weight.detach().clone()
    made = make_optimizer(OptimizerOptions("SGD", lr=0.1), network)
    network.weight.grad = torch.tensor([[1.0, -2.0, 0.5]])
    made.step()
    torch.testing.assert_close(before - network.weight, 0.1 * 1.9 * torch.tensor([[1.0, -2.0, 0.5]]))


@pytest.mark.parametrize("bfloat16", [True, False])
def test_muon_steps_along_an_orthogonal_matrix_in_the_precision_of_the_hardware(bfloat16, monkeypatch):
    monkeypatch.setattr(own_muon, "computes_in_bfloat16", lambda: bfloat16)
    seen = []
    original = own_muon.muon.zeropower_via_newtonschulz

    def spied(gradient, *arguments, **options):
        seen.append(options.get("dtype", torch.bfloat16))
        return original(gradient, *arguments, **options)

    monkeypatch.setattr(own_muon.muon, "zeropower_via_newtonschulz", spied)
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(8, 12))
    before = weight.detach().clone()
    weight.grad = torch.randn(8, 12)
    own_muon.Muon([{"params": [weight], "weight_decay": 0.0}], lr=0.1).step()
    assert seen == [torch.bfloat16 if bfloat16 else torch.float32]
    assert own_muon.muon.zeropower_via_newtonschulz is spied, "put back after the step"
    singular = torch.linalg.svdvals((before - weight).detach())
    assert singular.max() / singular.min() < 2, "close to a multiple of an orthogonal matrix"


def test_unknown_optimiser_and_rates_are_refused():
    with pytest.raises(RecipeError, match=r"optimizer\.name is 'Adan'; there are Adam, AdamW, SGD, Muon"):
        OptimizerOptions("Adan")
    for lr in (0.0, -1.0):
        with pytest.raises(RecipeError, match=r"optimizer\.lr must be above zero"):
            OptimizerOptions(lr=lr)


def test_own_optimiser_gets_groups_rate_and_arguments(tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\ndef optimiser(groups, lr, factor=1.0):\n    return torch.optim.SGD(groups, lr=lr * factor)\n"
    )
    network = nn.Linear(3, 2)
    name = f"{tmp_path / 'own.py'}:optimiser"
    made = make_optimizer(OptimizerOptions(name, lr=0.02, weight_decay=0.3, arguments={"factor": 5}), network)
    assert [(len(group["params"]), group["lr"], group["weight_decay"]) for group in made.param_groups] == [
        (1, 0.1, 0.3), (1, 0.1, 0.0),
    ]  # fmt: skip
    with pytest.raises(RecipeError, match=r"optimizer .*optimiser cannot be made of \{'speed': 3\}: .*'speed'"):
        make_optimizer(OptimizerOptions(name, arguments={"speed": 3}), network)


@pytest.mark.parametrize(
    ("name", "kind", "arguments", "found"),
    [
        ("Adam", torch.optim.Adam, {}, {"foreach": True, "betas": (0.9, 0.999)}),
        ("AdamW", torch.optim.AdamW, {"betas": (0.8, 0.9)}, {"foreach": True, "betas": (0.8, 0.9)}),
        ("AdamW", torch.optim.AdamW, {"foreach": False}, {"foreach": False}),
        ("SGD", torch.optim.SGD, {}, {"momentum": 0.9, "nesterov": True}),
        ("SGD", torch.optim.SGD, {"momentum": 0.5, "nesterov": False}, {"momentum": 0.5, "nesterov": False}),
        ("Muon", own_muon.Muon, {"momentum": 0.7}, {"momentum": 0.7}),
    ],
)
def test_optimisers_by_name_with_arguments(name, kind, arguments, found):
    made = make_optimizer(OptimizerOptions(name, arguments=arguments), nn.Linear(3, 2))
    assert type(made) is kind
    assert {key: made.defaults[key] for key in found} == found


def test_muon_returns_the_loss_and_puts_back_the_iteration_if_a_step_fails(monkeypatch):
    weight = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    original = own_muon.muon.zeropower_via_newtonschulz

    def closure():
        loss = weight.square().sum()
        loss.backward()
        return loss

    def fail():
        raise RuntimeError("no loss")

    for bfloat16 in (True, False):
        monkeypatch.setattr(own_muon, "computes_in_bfloat16", lambda answer=bfloat16: answer)
        made = own_muon.Muon([{"params": [weight], "weight_decay": 0.0}], lr=0.1)
        expected = float(weight.detach().square().sum())
        assert float(made.step(closure).detach()) == pytest.approx(expected)
        with pytest.raises(RuntimeError, match="no loss"):
            made.step(fail)
        assert own_muon.muon.zeropower_via_newtonschulz is original


def test_schedules_of_hardly_any_steps():
    assert of_steps(ScheduleOptions("cosine", warmup=0.0), steps=1, epochs=1)(0) == 1
    short = of_steps(ScheduleOptions("cosine", warmup=1.0), steps=4, epochs=1)
    assert [short(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 0])


def test_warmup_ends_with_the_step_in_which_its_share_does():
    factor = of_steps(ScheduleOptions("cosine", warmup=0.26), steps=10, epochs=1)
    assert [factor(step) for step in range(4)] == pytest.approx(
        [0.1 / 0.26, 0.2 / 0.26, 1, 0.5 * (1 + math.cos(math.pi * 0.04 / 0.74))]
    )
    tiny = of_steps(ScheduleOptions("cosine", warmup=1e-6), steps=10, epochs=1)
    assert [tiny(0), tiny(1)] == [1, 1], "it has a step at least"


@pytest.mark.parametrize("epochs", [3, 7, 10, 49])
def test_step_falls_with_the_first_step_of_an_epoch(epochs):
    factor = of_steps(ScheduleOptions("step", step_epochs=1, step_factor=0.5), steps=11 * epochs, epochs=epochs)
    assert [factor(step) for step in range(11 * epochs)] == [0.5 ** (step // 11) for step in range(11 * epochs)]


def test_options_by_default():
    assert OptimizerOptions() == OptimizerOptions("AdamW", 1e-3, 0.0, {})
    assert OptimizerOptions(lr=1e-12).lr == 1e-12
    assert OptimizerOptions("my_file.py:Mine").name == "my_file.py:Mine"
