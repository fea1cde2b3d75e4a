"""How long a training takes, from a few of its steps: real ones, of the recipe's own optimiser."""

import re

import pytest
import torch
from conftest import TINY

from darklens.tasks.supervised import SupervisedModule
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.workflows import estimate
from darklens.workflows.estimate import STEPS, TrainingRate, training_time


def test_time_is_that_of_steps_fits_and_validations():
    rate = TrainingRate(1, 6, 500, 1000, step=0.003, first=0.006, preparation=2, validation=1)
    assert rate.stepping == pytest.approx(3000 * 0.003 + 1000 * 0.006), "images that come again are not fitted again"
    assert rate.seconds == pytest.approx(2 + 15 + 6)
    assert TrainingRate(1, 1, 500, 1000, 0.003, 0.006, 0, 0).stepping == pytest.approx(4.5)


@pytest.fixture
def paced(monkeypatch):
    """A clock that steps of the optimiser and validations move on, by 3 s and 2 s."""
    now = [0.0]
    monkeypatch.setattr(estimate, "_now", lambda: now[0])
    step, validate = torch.optim.AdamW.step, SupervisedModule.validation_step

    def slow(self, *given, **named):
        now[0] += 3
        return step(self, *given, **named)

    def slow_validation(self, batch):
        now[0] += 2
        return validate(self, batch)

    monkeypatch.setattr(torch.optim.AdamW, "step", slow)
    monkeypatch.setattr(SupervisedModule, "validation_step", slow_validation)
    return now


def test_steps_are_those_of_the_real_optimiser(paced, dataset):
    recipe = load_recipe("substructure/demo", TINY | {"optimizer.name": "AdamW"})
    text = training_time(Job(recipe, str(dataset)))
    assert paced[0] == 3 * min(STEPS, 174 // 32) + 2, "the few steps that were timed"
    size, epochs, rate, seconds = re.fullmatch(
        r"substructure/demo: ([\d,]+) parameters; (\d) epochs of 174 images at about (\d+) images/s on this machine: "
        r"about (\d+) s",
        text,
    ).groups()
    assert int(size.replace(",", "")) == 2891
    assert int(epochs) == 2
    assert int(rate) == round(32 / 3)
    assert int(seconds) == round(2 * 174 / 32 * 3 + 2 * 2)


def test_estimates_of_times_members_and_sections(paced, dataset):
    job = Job(load_recipe("substructure/demo", TINY | {"optimizer.name": "AdamW", "trainer.minutes": 3}), str(dataset))
    assert training_time(job).endswith("images/s on this machine; 3 min, as asked")
    members = [{"recipe": "substructure/demo"}, {"recipe": "substructure/demo"}]
    more = TINY | {
        "optimizer.name": "AdamW",
        "members": members,
        "trainer.unfreezing": "sections",
        "trainer.epochs": 20,
    }
    text = training_time(Job(load_recipe("substructure/demo", more), str(dataset)))
    assert re.search(r"; 20 epochs of 174 images \+ 20 epochs of 174 images at .*: at most 12 min$", text)
