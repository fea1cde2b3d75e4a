"""Which epoch is kept, and how weights are averaged."""

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file

from darklens.tasks.supervised import SupervisedModule
from darklens.training.fit import moving_average
from darklens.training.history import epoch_history
from darklens.training.job import Job, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import train


def test_moving_average_forgets_faster_at_first():
    average = moving_average(0.9)
    old, new = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 2.0])
    torch.testing.assert_close(average(old, new, 0), 0.1 * old + 0.9 * new)
    torch.testing.assert_close(average(old, new, 10), 11 / 20 * old + 9 / 20 * new)
    torch.testing.assert_close(average(old, new, 10_000), 0.9 * old + 0.1 * new)
    assert average(torch.tensor(3), torch.tensor(7), 5) == 7, "counters are whole numbers; the newest is right"


LOSSES = [0.9, 0.4, 0.7, 1.2]
"""Of an imagined validation, epoch by epoch."""


def test_weights_of_the_best_epoch_are_kept(dataset, tmp_path, monkeypatch):
    """Neither those of the first, nor of the last, nor of the worst."""
    monkeypatch.setattr(
        SupervisedModule,
        "validation_step",
        lambda self, batch: self.log("validation/loss", torch.tensor(LOSSES[self.current_epoch]), batch_size=18),
    )
    monkeypatch.setattr(SupervisedModule, "on_validation_epoch_end", lambda self: None)
    options = {"trainer.epochs": 4, "trainer.keep_every": 1, "trainer.ema": None, "optimizer.name": "AdamW"}
    run = train(Job(load_recipe("substructure/demo", TINY | options), str(dataset)), tmp_path / "run")
    assert [epoch["validation/loss"] for epoch in epoch_history(run)] == pytest.approx(LOSSES)
    assert read_record(run)["training"]["best_epoch"] == 2
    saved = load_file(run / "model" / "model.safetensors")

    def of_epoch(number):
        state = torch.load(run / "checkpoints" / f"epoch={number}.ckpt", weights_only=True)["state_dict"]
        return state["network.stem.0.weight"]

    assert torch.equal(saved["stem.0.weight"], of_epoch(1))
    assert not torch.equal(saved["stem.0.weight"], of_epoch(3))


def test_averaged_weights_are_what_is_evaluated(dataset, tmp_path):
    options = TINY | {"trainer.epochs": 1, "optimizer.name": "AdamW"}
    runs = []
    for ema in (None, 0.99):
        recipe = load_recipe("substructure/demo", options | {"trainer.ema": ema})
        runs.append(train(Job(recipe, str(dataset)), tmp_path / str(ema)))
    plain, averaged = (load_file(run / "model" / "model.safetensors")["stem.0.weight"] for run in runs)
    kept = torch.load(runs[1] / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(averaged, kept["state_dict"]["network.stem.0.weight"])
    assert torch.equal(plain, kept["current_model_state"]["network.stem.0.weight"]), "the steps are the same"
    assert not torch.equal(plain, averaged)
