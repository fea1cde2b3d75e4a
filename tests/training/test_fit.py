"""Which epoch is kept, how weights are averaged, and what Lightning is asked for and tells."""

from types import SimpleNamespace

import pytest
import torch
from conftest import TINY
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from darklens.errors import DataError, RecipeError, TrainingError
from darklens.tasks.supervised import SupervisedModule
from darklens.training import fit as fitting
from darklens.training.fit import BestCheckpoint, EpochLines, TrainingDataModule, batches_done, fit, moving_average
from darklens.training.history import epoch_history
from darklens.training.job import Job, read_record
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train


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


def killed(dataset, path, monkeypatch, epochs):
    """A run of four epochs, of which the second is the best, that was killed after some; and its job."""
    monkeypatch.setattr(
        SupervisedModule,
        "validation_step",
        lambda self, batch: self.log("validation/loss", torch.tensor(LOSSES[self.current_epoch]), batch_size=18),
    )
    monkeypatch.setattr(SupervisedModule, "on_validation_epoch_end", lambda self: None)

    class Kill(EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == epochs:
                raise RuntimeError("killed")

    job = Job(load_recipe("substructure/demo", TINY | {"trainer.epochs": 4}), str(dataset))
    with monkeypatch.context() as patched:
        patched.setattr(fitting, "EpochLines", Kill)
        with pytest.raises(RuntimeError, match="killed"):
            train(job, path)
    return path, job


@pytest.fixture
def half_trained(dataset, tmp_path, monkeypatch):
    """Two of four epochs of a run whose second epoch is the best; and its job."""
    return killed(dataset, tmp_path / "run", monkeypatch, 2)


def test_an_epoch_that_is_not_the_best_is_kept_too(dataset, tmp_path, monkeypatch):
    run, job = killed(dataset, tmp_path / "run", monkeypatch, 3)
    states = [torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("best", "last")]
    assert [state["epoch"] for state in states] == [1, 2]
    whole = train(job, tmp_path / "whole")
    resume(run)
    kept, expected = (torch.load(each / "checkpoints" / "last.ckpt", weights_only=True) for each in (run, whole))
    assert kept["epoch"] == expected["epoch"] == 3
    assert read_record(run)["training"]["best_epoch"] == 2
    assert all(torch.equal(kept["state_dict"][name], tensor) for name, tensor in expected["state_dict"].items())


def test_run_that_was_moved_still_knows_its_best_epoch(half_trained, tmp_path):
    run, job = half_trained
    whole = train(job, tmp_path / "whole")
    moved = run.rename(tmp_path / "moved")
    resume(moved)
    kept, expected = (load_file(each / "model" / "model.safetensors") for each in (moved, whole))
    assert read_record(moved)["training"]["best_epoch"] == read_record(whole)["training"]["best_epoch"] == 2
    assert all(torch.equal(kept[name], tensor) for name, tensor in expected.items())
    assert not run.exists()


@pytest.mark.parametrize("name", ["run", "moved"])
def test_best_checkpoint_that_is_missing_is_refused(half_trained, tmp_path, name):
    run, _ = half_trained
    run = run.rename(tmp_path / name)
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(DataError, match=f"{name}/checkpoints/best.ckpt: the checkpoint of the best epoch is missing"):
        resume(run)


def test_best_checkpoint_is_kept_where_lightning_keeps_it(tmp_path):
    """So that runs of version 0.1 go on."""
    own, plain = (kind(tmp_path, filename="best", monitor="x") for kind in (BestCheckpoint, ModelCheckpoint))
    assert own.state_key == plain.state_key


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


def test_loaders_are_those_of_the_process():
    data = SimpleNamespace(
        train_loader=lambda *place: ("train", *place), validation_loader=lambda *place: ("val", *place)
    )
    module = TrainingDataModule(data)
    module.trainer = SimpleNamespace(global_rank=2, world_size=5)
    assert module.train_dataloader() == ("train", 2, 5)
    assert module.val_dataloader() == ("val", 2, 5)


def done(completed):
    progress = SimpleNamespace(batch_progress=SimpleNamespace(total=SimpleNamespace(completed=completed)))
    return SimpleNamespace(epoch_loop=progress)


def batch_of(images):
    return {"image": torch.zeros(images, 1, 2, 2)}


def pretended(processes=1, **known):
    """A trainer of so many processes, all of which have the same images."""
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor * processes if reduce_op == "sum" else None)
    return SimpleNamespace(strategy=strategy, num_training_batches=4, sanity_checking=False, **known)


@pytest.mark.parametrize("processes", [1, 3])
def test_rate_is_of_the_images_of_finished_steps_without_validation(monkeypatch, processes):
    """Four batches in 2 seconds, and two of an epoch of four that is cut short, one with fewer images, in 6 seconds."""
    clock = iter([10.0, 12.0, 30.0, 36.0])
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: next(clock))
    lines, module = EpochLines(0.0, 8), SimpleNamespace(device="cpu")
    assert (lines.images, lines.images_per_second) == (0, 0.0)
    for epoch in ([8, 8, 8, 8], [8, 5]):
        for number, images in enumerate(epoch):
            lines.on_train_batch_start(None, module, batch_of(images), number)
            lines.on_train_batch_end(None, module, None, batch_of(images), number)
        lines.on_validation_start(pretended(processes), module)
    sanity = SimpleNamespace(sanity_checking=True)
    lines.on_validation_start(sanity, module)
    assert lines.images == 45 * processes
    assert lines.images_per_second == 45 * processes / 8
    checkpoint = {}
    lines.on_save_checkpoint(None, module, checkpoint)
    resumed = EpochLines(0.0, 8)
    resumed.on_load_checkpoint(None, module, checkpoint)
    assert (resumed.images, resumed.images_per_second) == (lines.images, lines.images_per_second)


@pytest.fixture
def stops(monkeypatch):
    """Stop, as if the time were up, at the second batch of an epoch."""

    def after(epoch):
        def stop(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = (trainer.current_epoch, batch_idx) == (epoch, 1)

        monkeypatch.setattr(fitting.FiniteLoss, "on_train_batch_end", stop)

    return after


def test_images_of_an_epoch_that_is_cut_short_are_counted(dataset, tmp_path, stops):
    stops(1)
    run = train(Job(load_recipe("substructure/demo", TINY | {"trainer.epochs": 3}), str(dataset)), tmp_path / "run")
    training = read_record(run)["training"]
    assert (training["steps"], training["images"]) == (5 + 2, 7 * 32)


@pytest.mark.parametrize("version", ["0.1", "now"])
def test_images_are_counted_on_in_a_run_that_is_resumed(half_trained, stops, version):
    run, _ = half_trained
    last = run / "checkpoints" / "last.ckpt"
    state = torch.load(last, weights_only=True)
    assert state["trained"].pop("seconds") > 0
    assert state.pop("trained") == {"images": 10 * 32, "timed": 10 * 32}
    if version == "0.1":
        torch.save(state, last)
    stops(3)
    resume(run)
    training = read_record(run)["training"]
    assert (training["steps"], training["images"]) == (15 + 2, 17 * 32)
    assert training["images_per_second"] > 0


@pytest.mark.parametrize(("epochs", "every"), [(3, 15), (None, 5)])
def test_progress_is_in_batches_of_the_whole_training(epochs, every):
    lines, seen = EpochLines(0.0, 8), []
    trainer = SimpleNamespace(fit_loop=done(7), num_training_batches=5.0, max_epochs=epochs)
    lines.on_train_batch_end(trainer, None, None, batch_of(8), 0)
    lines.advance = lambda *numbers: seen.append(numbers)
    lines.on_train_batch_end(trainer, None, None, batch_of(8), 0)
    assert seen == [(7, every)]
    assert batches_done(trainer) == 7


def test_epoch_is_told_in_a_line_and_timed_in_the_log(capsys, monkeypatch):
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: 100.0)
    logged = []
    trainer = SimpleNamespace(
        sanity_checking=False, is_global_zero=True, current_epoch=1, max_epochs=5, global_step=17,
        callback_metrics={"validation/loss": torch.tensor(0.123456), "train/loss": torch.tensor(9.0),
                          "validation/auc": torch.tensor(0.75)},
        loggers=[SimpleNamespace(log_metrics=lambda *given: logged.append(given))],
    )  # fmt: skip
    lines = EpochLines(39.0, 8)
    lines.on_validation_end(trainer, None)
    assert capsys.readouterr().out == "epoch 2/5  validation: auc 0.75  loss 0.1235  61 s\n"
    ((values, step),) = logged
    assert (values["epoch"], step) == (1, 17)
    assert values["seconds"] == 61
    for helper in ({"is_global_zero": False}, {"sanity_checking": True}):
        lines.on_validation_end(SimpleNamespace(**vars(trainer) | helper), None)
    assert capsys.readouterr().out == ""
    assert len(logged) == 1


class Trained(Exception):
    """Raised instead of a fit, with what Lightning was given."""


class Pretend:
    """Lightning's trainer, which keeps what it is given and fits nothing."""

    is_global_zero, interrupted, precision, world_size = True, False, "32-true", 1

    def __init__(self, **given):
        self.given = given
        Pretend.last = self

    def fit(self, module, **given):
        self.fitted = given
        raise Trained


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What Lightning is asked for by a recipe with changes."""
    monkeypatch.setattr(fitting, "Trainer", Pretend)

    def ask(wandb=None, checkpoint=None, **overrides):
        recipe = load_recipe("substructure/demo", {f"trainer.{key}": value for key, value in overrides.items()})
        data = SimpleNamespace(train_images=1234, validation=range(56), notes=["a note"])
        module = SimpleNamespace(keeps_last=False, network=torch.nn.Linear(30, 40))
        job = Job(recipe, "d", wandb=wandb)
        with pytest.raises(Trained):
            fit(job, data, module, tmp_path / "run", checkpoint=checkpoint, started=0.0)
        return Pretend.last, {type(each).__name__: each for each in Pretend.last.given["callbacks"]}

    return ask


def test_lightning_is_asked_for_what_the_recipe_says(asked, tmp_path, capsys):
    trainer, callbacks = asked(
        epochs=7,
        precision="32-true",
        accelerator="cpu",
        devices="2",
        nodes=3,
        strategy="ddp",
        gradient_clip=0.5,
        ema=None,
    )
    expected = {
        "max_epochs": 7, "precision": "32-true", "accelerator": "cpu", "devices": 2, "num_nodes": 3, "strategy": "ddp",
        "gradient_clip_val": 0.5, "default_root_dir": tmp_path / "run", "use_distributed_sampler": False,
        "num_sanity_val_steps": 0, "enable_model_summary": False, "enable_progress_bar": False,
    }  # fmt: skip
    assert {key: trainer.given[key] for key in expected} == expected
    assert trainer.fitted["ckpt_path"] is None
    assert trainer.fitted["weights_only"] is True
    assert list(callbacks) == ["BestCheckpoint", "EpochLines", "FiniteLoss"]
    best = callbacks["BestCheckpoint"]
    assert (best.dirpath, best.filename, best.monitor, best.save_last, best.save_top_k) == (
        str(tmp_path / "run" / "checkpoints"), "best", "validation/loss", True, 1,
    )  # fmt: skip
    csv, board = trainer.given["logger"]
    assert (csv.log_dir, board.log_dir) == (str(tmp_path / "run/logs/csv-0"), str(tmp_path / "run/logs/tensorboard"))
    out = capsys.readouterr().out
    assert out.startswith(
        "substructure/demo: 1,240 parameters, 1,234 training and 56 validation images, 32-true, threads: "
    )
    assert "note: a note\n" in out


def test_callbacks_follow_from_the_recipe(asked):
    trainer, callbacks = asked(patience=4, ema=0.9, minutes=2.5, keep_every=3, devices="auto")
    assert trainer.given["devices"] == "auto"
    assert (callbacks["EarlyStopping"].monitor, callbacks["EarlyStopping"].patience) == ("validation/loss", 4)
    assert callbacks["TimeBudget"].seconds == 150
    assert trainer.given["num_sanity_val_steps"] == 2
    assert "WeightAveraging" in callbacks
    kept = [each for each in trainer.given["callbacks"] if getattr(each, "save_top_k", None) == -1]
    assert [(each.filename, each._every_n_epochs) for each in kept] == [("{epoch}", 3)]


def test_processes_that_cannot_share_a_batch_are_refused_before_they_start(asked, monkeypatch):
    monkeypatch.setattr(Pretend, "world_size", 3)
    asked(batch_size=96)
    with pytest.raises(RecipeError, match="64 images in a step cannot be divided equally among 3 processes"):
        asked(batch_size=64)


def test_another_attempt_logs_beside_the_first(asked, tmp_path):
    for number in (0, 1):
        (tmp_path / "run" / "logs" / f"csv-{number}").mkdir(parents=True)
    trainer, _ = asked()
    assert trainer.given["logger"][0].log_dir == str(tmp_path / "run/logs/csv-2")


def test_checkpoint_that_was_cut_off_is_refused(asked, tmp_path, monkeypatch):
    whole = tmp_path / "last.ckpt"
    torch.save({"epoch": 3}, whole)
    trainer, _ = asked(checkpoint=whole)
    assert trainer.fitted["ckpt_path"] == whole
    whole.write_bytes(whole.read_bytes()[:50])
    job = Job(load_recipe("substructure/demo"), "d")
    data = SimpleNamespace(train_images=1, validation=[], notes=[])
    module = SimpleNamespace(keeps_last=False, network=torch.nn.Linear(1, 1))
    with pytest.raises(DataError, match=r"last\.ckpt: cannot be read as a checkpoint; bring a copy back, or remove"):
        fit(job, data, module, tmp_path / "run", checkpoint=whole, started=0.0)


class Finishes(Pretend):
    """A trainer that has done a fit: what it left, by its callbacks."""

    best = ""

    def fit(self, module, **given):
        self.given["callbacks"][0].best_model_path = self.best
        self.given["callbacks"][1].images = 321


def test_weights_and_figures_of_the_best_epoch_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "Trainer", Finishes)
    network = torch.nn.Linear(3, 2)
    state = {f"network.{name}": torch.full_like(tensor, 2.5) for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state | {"metrics.x": torch.zeros(1)}}, tmp_path / "best.ckpt")
    monkeypatch.setattr(Finishes, "best", str(tmp_path / "best.ckpt"))
    log = tmp_path / "run" / "logs" / "csv-0"
    log.mkdir(parents=True)
    (log / "metrics.csv").write_text(
        "epoch,seconds,train/loss_epoch,validation/loss,validation/auc\n0,40,0.5,0.9,0.6\n1,80,0.4,0.8,0.7\n2,120,0.3,0.85,0.9\n"
    )
    job = Job(load_recipe("substructure/demo", {"trainer.batch_size": 50}), "d")
    data = SimpleNamespace(train_images=1, validation=[], notes=[])
    module = SimpleNamespace(keeps_last=False, network=network)
    monkeypatch.setattr(fitting.time, "perf_counter", lambda: 100.0)
    started = 70.0
    found = fit(job, data, module, tmp_path / "run", checkpoint=None, started=started)
    assert all((tensor == 2.5).all() for tensor in network.state_dict().values())
    assert (found.best_epoch, found.measured) == (2, {"loss": 0.8, "auc": 0.7})
    assert found.seconds == 120 + 30, "with the time of the earlier attempts"
    assert (found.images, found.images_per_second) == (321, 0)
    assert isinstance(found.trainer, Finishes)
    monkeypatch.setattr(EpochLines, "images_per_second", 200.0)
    assert fit(job, data, module, tmp_path / "run", checkpoint=None, started=started).images_per_second == 200
    monkeypatch.setattr(Finishes, "is_global_zero", False)
    assert fit(job, data, module, tmp_path / "run", checkpoint=None, started=started) is None
    monkeypatch.setattr(Finishes, "interrupted", True)
    with pytest.raises(KeyboardInterrupt):
        fit(job, data, module, tmp_path / "run", checkpoint=None, started=started)


@pytest.mark.parametrize(("interrupted", "ends"), [(True, KeyboardInterrupt), (False, SystemExit)])
def test_interruption_is_told_from_an_end(tmp_path, monkeypatch, interrupted, ends):
    class Leaves(Pretend):
        def fit(self, module, **given):
            self.interrupted = interrupted
            raise SystemExit

    monkeypatch.setattr(fitting, "Trainer", Leaves)
    job = Job(load_recipe("substructure/demo"), "d")
    data = SimpleNamespace(train_images=1, validation=[], notes=[])
    with pytest.raises(ends):
        fit(
            job,
            data,
            SimpleNamespace(keeps_last=False, network=torch.nn.Linear(1, 1)),
            tmp_path,
            checkpoint=None,
            started=0.0,
        )


def test_weights_and_biases_gets_the_project_and_the_name_of_the_run(asked, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", lambda **given: seen.update(given))
    for mode, offline in (("offline", True), ("online", False)):
        monkeypatch.setenv("WANDB_MODE", mode)
        asked(wandb="project")
        assert seen == {"name": "run", "project": "project", "save_dir": tmp_path / "run", "offline": offline}


def test_a_loss_that_is_not_finite_ends_the_training_before_it_is_kept(dataset, tmp_path, monkeypatch):
    """In the second epoch: the checkpoint of the first stays, and the message says what to lower."""
    step = SupervisedModule.training_step

    def spoiled(self, batch):
        loss = step(self, batch)
        return loss * float("nan") if self.current_epoch == 1 and self.trainer.global_step % 2 else loss

    monkeypatch.setattr(SupervisedModule, "training_step", spoiled)
    recipe = load_recipe("substructure/demo", TINY | {"trainer.epochs": 3})
    said = r"nan or infinite in epoch 2; the model of epoch 1 is kept\. Train anew with a lower --optimizer\.lr"
    with pytest.raises(TrainingError, match=said):
        train(Job(recipe, str(dataset)), tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["epoch"] == 0
    assert all(value.isfinite().all() for value in state["state_dict"].values() if value.is_floating_point())
    assert not (tmp_path / "run" / "model").exists()
