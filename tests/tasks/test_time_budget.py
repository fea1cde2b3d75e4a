"""Trainings that have a time: what fits into it, by a clock that the tests set."""

import copy
import itertools
from types import SimpleNamespace

import pytest
from conftest import TINY

from darklens.models.registry import build_network
from darklens.tasks import time_budget as timing
from darklens.tasks.optimization import learning_rate_factor
from darklens.tasks.options import ScheduleOptions
from darklens.tasks.supervised import SupervisedModule
from darklens.tasks.time_budget import VALIDATION_SHARE, TimeBudget
from darklens.training.history import epoch_history
from darklens.training.job import Job, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(timing, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Loader:
    """Five batches a pass, each with the number of its pass."""

    def __init__(self):
        self.sampler = SimpleNamespace(set_epoch=lambda number: setattr(self, "number", number))

    def __iter__(self):
        yield from [self.number] * 5


def trained(clock, budget, step, validation, epochs=99, sanity=True):
    """Go through a training as Lightning does: it fetches a batch before it trains on the one before.

    Returns
    -------
    Ends of the epochs, the share and learning rate of each step, and the passes of its batches.
    """
    trainer = SimpleNamespace(world_size=1, should_stop=False, sanity_checking=True, val_dataloaders=[None] * 8)
    budget.on_fit_start(trainer, None)
    for _ in range(2 if sanity else 0):
        budget.on_validation_batch_start(trainer, None, None, 0)
        clock.now += validation / 8
        budget.on_validation_batch_end(trainer, None, None, None, 0)
    trainer.sanity_checking = False
    batches, ends, rates, passes = budget.batches(Loader()), [], [], []
    factor = learning_rate_factor(ScheduleOptions("cosine", warmup=0.1), 10)
    budget.on_train_start(trainer, None)
    while not trainer.should_stop and len(ends) < epochs:
        budget.on_train_epoch_start(trainer, None)
        fetching = iter(batches)
        following = next(fetching)
        while following is not None:
            passes.append(following)
            following = next(fetching, None)
            rates.append((budget.share, factor(budget.share, budget.step_share)))
            clock.now += step() if callable(step) else step
            budget.on_train_batch_end(trainer, None, None, None, 0)
        budget.on_validation_start(trainer, None)
        clock.now += validation() if callable(validation) else validation
        budget.on_validation_end(trainer, None)
        ends.append(budget.elapsed())
    return ends, rates, passes


@pytest.mark.parametrize("step", [0.01, 0.3, 2.0, 4.0])
@pytest.mark.parametrize("validation", [0.02, 1.5, 9.0])
@pytest.mark.parametrize("preparation", [0.0, 7.0])
def test_time_is_used_up_and_never_exceeded_by_more_than_half_a_step(clock, step, validation, preparation):
    budget = TimeBudget(100.0, 10, clock.now - preparation)
    ends, rates, _ = trained(clock, budget, step, validation)
    assert ends[-1] == pytest.approx(100, abs=0.51 * step)
    assert len(ends) * validation <= (VALIDATION_SHARE + 0.02) * 100
    assert len(ends) == (10 if validation < 9 and preparation == 0 else len(ends)) <= 10
    lengths = [b - a for a, b in itertools.pairwise(ends)] or [1]
    assert max(lengths) < 2.01 * min(lengths) + 2 * step + validation
    shares, factors = zip(*rates, strict=True)
    assert list(shares) == sorted(shares)
    assert factors[-1] < 0.02, "a cosine ends at its end"
    assert max(factors) > 0.9


def test_epochs_end_when_their_share_of_the_time_does(clock):
    ends, rates, passes = trained(clock, TimeBudget(100.0, 4, clock.now), step=0.5, validation=2.0)
    assert ends == pytest.approx([25, 50, 75, 100], abs=0.5)
    assert passes == [i // 5 for i in range(len(passes))], "an epoch goes on where the last one stopped"
    assert len(rates) == pytest.approx((100 - 4 * 2) / 0.5, abs=3)
    middle = next(i for i, (share, _) in enumerate(rates) if share >= 0.5)
    assert middle == pytest.approx(len(rates) / 2, abs=3), "validation is no part of the share"


def test_a_network_that_slows_down_ends_in_time(clock):
    """As one whose sections thaw does."""
    seconds = iter([0.2] * 150 + [1.0] * 1000)
    ends, rates, _ = trained(clock, TimeBudget(120.0, 10, clock.now), lambda: next(seconds), validation=1.0)
    assert ends[-1] == pytest.approx(120, abs=0.6)
    assert rates[-1][1] < 0.02


@pytest.mark.parametrize("slow", range(9))
def test_a_validation_that_another_program_slowed_down_says_nothing_of_the_next(clock, slow):
    seconds = iter([8.0 if i == slow else 1.0 for i in range(10)])
    ends, rates, _ = trained(clock, TimeBudget(100.0, 10, clock.now), 0.2, lambda: next(seconds), sanity=False)
    assert ends[-1] == pytest.approx(100, abs=0.2)
    assert rates[-1][1] < 0.02


def test_validations_that_were_measured_before_an_interruption_count_after_it(clock):
    seconds = iter([1.0, 1.0, 8.0])
    budget = TimeBudget(100.0, 4, clock.now)
    trained(clock, budget, 0.2, lambda: next(seconds), epochs=3, sanity=False)
    again = TimeBudget(100.0, 4, clock.now)
    again.load_state_dict(copy.deepcopy(budget.state_dict()))
    assert trained(clock, again, 0.2, validation=1.0, sanity=False)[0] == pytest.approx([100], abs=0.2)


def test_budget_of_an_older_checkpoint_goes_on(clock):
    old = {"elapsed": 40.0, "stepping": 36.0, "step": 0.5, "validation": 1.0, "is_over": False, "passes": 7}
    budget = TimeBudget(100.0, 10, clock.now)
    budget.load_state_dict(old)
    ends, rates, passes = trained(clock, budget, step=0.5, validation=1.0, sanity=False)
    assert ends[-1] == pytest.approx(100, abs=0.5)
    assert (rates[0][0], passes[0]) == (pytest.approx(0.39, abs=0.02), 7)


def test_least_is_a_step_and_a_validation(clock):
    ends, _, _ = trained(clock, TimeBudget(1.0, 10, clock.now - 5), step=2.0, validation=3.0)
    assert len(ends) == 1


def test_epoch_in_which_nothing_fits_is_not_begun(clock):
    """A validation takes longer than was seen beforehand."""
    budget = TimeBudget(100.0, 2, clock.now)
    ends, _, _ = trained(clock, budget, step=1.0, validation=55.0, sanity=False)
    assert ends == pytest.approx([50 + 55], abs=1)


def test_time_to_keep_large_weights_is_set_apart_before_the_first_epoch(clock, monkeypatch, tmp_path):
    """Written once they take 2 s, so two checkpoints of weights and moments 12 s."""

    def save(state, file):
        assert state == {"weight": 3}
        clock.now += 2

    monkeypatch.setattr(timing.torch, "save", save)
    budget = TimeBudget(100.0, 1, clock.now)
    trainer = SimpleNamespace(is_global_zero=True, default_root_dir=tmp_path)
    budget.on_sanity_check_end(trainer, SimpleNamespace(state_dict=lambda: {"weight": 3}))
    ends, _, _ = trained(clock, budget, step=0.5, validation=1.0, sanity=False)
    assert ends == pytest.approx([100 - 12 + 1], abs=0.5)
    assert not list(tmp_path.iterdir())


def test_interrupted_time_goes_on_with_what_was_left(clock):
    budget = TimeBudget(100.0, 10, clock.now)
    ends, _, passes = trained(clock, budget, step=0.5, validation=1.0, epochs=4)
    assert ends[-1] == pytest.approx(40, abs=0.5)
    state = copy.deepcopy(budget.state_dict())
    clock.now += 5000
    again = TimeBudget(100.0, 10, clock.now)
    again.load_state_dict(state)
    clock.now += 3  # preparation
    later, rates, more = trained(clock, again, step=0.5, validation=1.0, sanity=False)
    assert later[-1] == pytest.approx(100, abs=0.5)
    assert rates[0][0] == pytest.approx(0.41, abs=0.03)
    assert more[0] == max(passes) + 1, "no pass is begun twice"
    over = TimeBudget(100.0, 10, clock.now)
    over.load_state_dict(again.state_dict())
    assert trained(clock, over, step=0.5, validation=1.0, sanity=False)[0] == []


def test_first_process_decides_for_all(clock):
    """Its clock is ahead of this one's."""
    budget = TimeBudget(100.0, 1, clock.now)
    told = []

    def broadcast(value):
        told.append(value)
        return (False, 0.7, 0.1) if isinstance(value, tuple) else value

    trainer = SimpleNamespace(world_size=2, should_stop=False, strategy=SimpleNamespace(broadcast=broadcast))
    budget.on_fit_start(trainer, None)
    budget.on_train_epoch_start(trainer, None)
    assert list(budget.batches(Loader())) == [0]
    assert told[-1][0] is True
    assert (budget.share, budget.step_share) == (0.7, 0.1)


@pytest.fixture
def paced(clock, monkeypatch):
    """Steps of 2 s and validations of 1 s, by the tests' clock."""
    step, validate = SupervisedModule.training_step, SupervisedModule.validation_step
    rates = []

    def slow_step(self, batch):
        clock.now += 2
        rates.append(self.optimizers().param_groups[0]["lr"] / self.options.optimizer.lr)
        return step(self, batch)

    def slow_validation(self, batch):
        clock.now += 1
        return validate(self, batch)

    monkeypatch.setattr(SupervisedModule, "training_step", slow_step)
    monkeypatch.setattr(SupervisedModule, "validation_step", slow_validation)
    monkeypatch.setattr("darklens.training.fit.time.perf_counter", lambda: clock.now)
    monkeypatch.setattr("darklens.training.train.time.perf_counter", lambda: clock.now)
    return rates


def minutes(recipe="substructure/demo", **more):
    return load_recipe(recipe, TINY | {"trainer.minutes": 2, "trainer.epochs": 6} | more)


def test_training_takes_its_minutes(paced, dataset, tmp_path, capsys):
    run = train(Job(minutes(), str(dataset)), tmp_path / "run")
    training = read_record(run)["training"]
    assert training["seconds"] == pytest.approx(120, abs=2)
    assert training["epochs"] == 6
    assert training["steps"] == len(paced) == pytest.approx((120 - 2 - 6) / 2, abs=2)
    assert paced[-1] < 0.02
    assert max(paced) > 0.95
    assert "epoch 6  validation" in capsys.readouterr().out
    assert [each["seconds"] for each in epoch_history(run)] == pytest.approx([20, 40, 60, 80, 100, 120], abs=2.1)


def test_killed_training_takes_no_more(paced, dataset, tmp_path, monkeypatch):
    step = SupervisedModule.training_step

    def killed(self, batch):
        if self.current_epoch == 3:
            raise RuntimeError("killed")
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedModule, "training_step", killed)
        with pytest.raises(RuntimeError, match="killed"):
            train(Job(minutes(), str(dataset)), tmp_path / "run")
    before = len(paced)
    run = resume(tmp_path / "run")
    assert len(paced) - before == pytest.approx((120 - 60 - 3) / 2, abs=2)
    assert read_record(run)["training"]["seconds"] == pytest.approx(120, abs=3)
    assert paced[before] < paced[before - 1] < 0.8
    assert paced[-1] < 0.02


def test_members_share_the_time(paced, dataset, tmp_path):
    members = [{"recipe": "substructure/demo"}, {"recipe": "substructure/demo"}]
    run = train(Job(minutes(members=members), str(dataset)), tmp_path / "run")
    assert read_record(run)["training"]["seconds"] == pytest.approx(120, abs=4)
    assert len(list((run / "members").iterdir())) == 2


def test_sections_thaw_by_the_clock(paced, clock, dataset, tmp_path, monkeypatch):
    """Validations that take long leave fewer epochs than the sections were dealt out to."""
    network = {"name": "compact", "widths": [4, 8, 16], "blocks": [1, 1, 1]}
    validate = SupervisedModule.validation_step

    def slower(self, batch):
        clock.now += 4
        return validate(self, batch)

    monkeypatch.setattr(SupervisedModule, "validation_step", slower)
    monkeypatch.setattr("darklens.training.build.has_learned_weights", lambda *given: True)
    recipe = minutes(
        **{f"network.{key}": value for key, value in network.items()}, **{"trainer.unfreezing": "sections"}
    )
    seen = []
    start = SupervisedModule.on_train_epoch_start

    def watched(self):
        start(self)
        seen.append(sum(p.requires_grad for p in self.network.parameters()))

    monkeypatch.setattr(SupervisedModule, "on_train_epoch_start", watched)
    train(Job(recipe, str(dataset)), tmp_path / "run")
    assert len(seen) == 3
    assert seen[0] < seen[-1] == len(list(build_network("compact", 1, 3, recipe.network_options).parameters()))
