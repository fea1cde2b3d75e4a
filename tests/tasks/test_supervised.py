"""The Lightning module: what an epoch's seed decides, and what is logged."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from darklens.data.augmentation import transform
from darklens.data.preprocessing import Preprocessing
from darklens.errors import UserCodeError
from darklens.tasks.base import Needs
from darklens.tasks.classify import Classify, LossPhase
from darklens.tasks.optimization import LearningOptions
from darklens.tasks.options import OptimizerOptions, ScheduleOptions
from darklens.tasks.regress import Regress
from darklens.tasks.supervised import SupervisedModule

IMAGES = torch.arange(8 * 25.0).reshape(8, 1, 5, 5)
BATCH = {"image": IMAGES, "target": torch.zeros(8, dtype=torch.long)}


def module(seed=0, augmentation="dihedral", epoch=0):
    made = SupervisedModule(
        Classify(class_names=["a", "b"]),
        nn.Flatten(),
        Preprocessing(stretch="none"),
        LearningOptions(augmentation=augmentation, seed=seed),
    )
    made._trainer = SimpleNamespace(current_epoch=epoch, global_rank=0, max_epochs=3)
    made.on_train_epoch_start()
    return made


def test_augmentation_turns_each_image_by_a_symmetry_of_its_own():
    images, _ = module().augmented(BATCH)
    numbers = [next(k for k in range(8) if torch.equal(transform(IMAGES[i], k), images[i])) for i in range(8)]
    assert len(set(numbers)) > 2
    plain, _ = module(augmentation="none").augmented(BATCH)
    assert torch.equal(plain, IMAGES)


def test_augmentation_follows_from_seed_and_epoch():
    first, _ = module(seed=1, epoch=4).augmented(BATCH)
    assert torch.equal(first, module(seed=1, epoch=4).augmented(BATCH)[0])
    assert not torch.equal(first, module(seed=1, epoch=5).augmented(BATCH)[0]), "another epoch, other turns"
    assert not torch.equal(first, module(seed=2, epoch=4).augmented(BATCH)[0]), "another seed, other turns"


@pytest.mark.parametrize(
    ("returned", "found"),
    [(torch.ones(8), r"a tensor \(8,\)"), (torch.ones(1), r"a tensor \(1,\)"), (0.5, "a float"), (None, "a NoneType")],
)
def test_a_loss_that_is_no_number_is_refused(returned, found, monkeypatch):
    made = module()
    monkeypatch.setattr(made, "log", lambda *given, **more: None)
    for name, step in (("loss", made.training_step), ("validation_loss", made.validation_step)):
        monkeypatch.setattr(Classify, name, lambda *given: returned)
        with pytest.raises(UserCodeError, match=f"^{name} of Classify returns {found}; expected one number"):
            step(BATCH)


def test_a_metric_does_not_take_the_place_of_the_validation_loss(monkeypatch):
    monkeypatch.setattr(Classify, "validation_metrics", lambda self: {"loss": None})
    with pytest.raises(UserCodeError, match="validation_metrics of Classify: loss is the name of the validation loss"):
        module()


def test_dropout_follows_from_seed_and_epoch():
    def dropped(**which):
        module(**which)
        return nn.functional.dropout(torch.ones(64))

    assert torch.equal(dropped(seed=3), dropped(seed=3))
    assert not torch.equal(dropped(seed=3), dropped(seed=3, epoch=1))
    assert not torch.equal(dropped(seed=3), dropped(seed=4))


def test_validation_sees_images_as_they_are():
    assert torch.equal(module()(BATCH), IMAGES.flatten(1))


def test_state_of_a_regression_of_version_0_1_is_read_without_its_scale():
    checkpoint = {"state_dict": {"center": 1, "network.x": 2}, "current_model_state": {"scale": 3}}
    module().on_load_checkpoint(checkpoint)
    assert checkpoint == {"state_dict": {"network.x": 2}, "current_model_state": {}}


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c"]])
def test_metrics_have_names_of_validation(names):
    made = SupervisedModule(Classify(class_names=names), nn.Flatten(), Preprocessing(), LearningOptions())
    assert set(made.metrics.keys(keep_base=False)) == {"validation/accuracy", "validation/auc"}


def logging(task, network, epoch=0, **options):
    """A module that keeps what it logs: lists of (name, value, options)."""
    made = SupervisedModule(task, network, Preprocessing(stretch="none"), LearningOptions(**options))
    made._trainer = SimpleNamespace(current_epoch=epoch, global_rank=0, max_epochs=4, estimated_stepping_batches=40)
    made.logged, made.whole = [], []
    made.log = lambda name, value, **how: made.logged.append((name, value, how))
    made.log_dict = lambda values, **how: made.whole.append((values, how))
    return made


LOGITS = torch.tensor([[2.0, 0.3], [-1.0, 0.5], [1.9, 0.1], [1.5, -0.4]])
LABELS = torch.tensor([0, 1, 1, 0])
AS_IMAGES = {"image": LOGITS.reshape(4, 1, 1, 2), "target": LABELS}


@pytest.mark.parametrize(("epoch", "smoothing"), [(0, 0.0), (1, 0.0), (2, 0.3), (3, 0.3)])
def test_loss_of_a_training_step_is_that_of_its_epoch(epoch, smoothing):
    """Lightning counts epochs from 0, recipes from 1."""
    task = Classify([LossPhase(), LossPhase(label_smoothing=0.3, from_epoch=3)], ["a", "b"])
    made = logging(task, nn.Flatten(), epoch)
    loss = made.training_step(AS_IMAGES)
    torch.testing.assert_close(loss, functional.cross_entropy(LOGITS, LABELS, label_smoothing=smoothing))
    ((name, value, how),) = made.logged
    assert (name, value, how["batch_size"]) == ("train/loss", loss, 4)
    assert how["on_step"]
    assert how["on_epoch"]
    assert how["prog_bar"]


def test_validation_logs_loss_and_metrics_of_all_batches_and_begins_anew():
    made = logging(Classify(class_names=["a", "b"]), nn.Flatten())
    for _ in range(2):
        made.logged, made.whole = [], []
        for rows in (slice(0, 3), slice(3, 4)):
            made.validation_step({name: values[rows] for name, values in AS_IMAGES.items()})
        made.on_validation_epoch_end()
        assert [(name, how["batch_size"]) for name, _, how in made.logged] == [
            ("validation/loss", 3),
            ("validation/loss", 1),
        ]
        assert all(how["prog_bar"] and how["sync_dist"] for _, _, how in made.logged)
        torch.testing.assert_close(made.logged[0][1], functional.cross_entropy(LOGITS[:3], LABELS[:3]))
        ((values, how),) = made.whole
        assert how == {"prog_bar": True, "sync_dist": False}
        expected = roc_auc_score(LABELS, LOGITS.softmax(-1)[:, 1])
        assert {name: float(value) for name, value in values.items()} == {
            "validation/accuracy": 0.75,
            "validation/auc": pytest.approx(expected),
        }
        other = {"image": -LOGITS.reshape(4, 1, 1, 2), "target": LABELS}
        made.validation_step(other)
        made.on_validation_epoch_end()
        assert float(made.whole[-1][0]["validation/accuracy"]) == 0.25, "of this pass alone"


def test_values_are_computed_with_in_float32():
    made = logging(Regress("m", center=[1.0], scale=[2.0]), nn.Flatten())
    batch = {"image": torch.tensor([0.5, -1.5]).reshape(2, 1, 1, 1), "target": torch.tensor([[2.0], [0.0]]).double()}
    loss = made.training_step(batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(0.5))
    made.validation_step(batch)
    made.on_validation_epoch_end()
    assert {name: float(value) for name, value in made.whole[0][0].items()} == {
        "validation/mse": 2.0,
        "validation/mae": 1.0,
    }


@dataclass(frozen=True)
class Without(Classify):
    """A classification without validation metrics."""

    def validation_metrics(self):
        return {}


def test_nothing_is_logged_of_a_task_without_metrics():
    made = logging(Without(class_names=["a", "b"]), nn.Flatten())
    made.on_validation_epoch_end()
    assert made.whole == []


def test_learning_rate_is_stepped_after_every_batch():
    """Of 40 steps in 4 epochs, the first 4 (a tenth) rise."""
    network = nn.Linear(2, 2)
    schedule = ScheduleOptions("cosine", warmup=0.1)
    made = logging(
        Classify(class_names=["a", "b"]), network, optimizer=OptimizerOptions("SGD", lr=0.2), schedule=schedule
    )
    found = made.configure_optimizers()
    scheduler = found["lr_scheduler"]["scheduler"]
    assert found["lr_scheduler"]["interval"] == "step"
    assert scheduler.optimizer is found["optimizer"]
    assert {id(p) for group in found["optimizer"].param_groups for p in group["params"]} == set(
        map(id, network.parameters())
    )
    rates = []
    for _ in range(40):
        rates.append(scheduler.get_last_lr()[0])
        found["optimizer"].step()
        scheduler.step()
    np.testing.assert_allclose(rates[:5], [0.05, 0.1, 0.15, 0.2, 0.2])
    np.testing.assert_allclose(rates[22], 0.1)
    stepped = logging(
        Classify(class_names=["a", "b"]), network, optimizer=OptimizerOptions("SGD", lr=0.2),
        schedule=ScheduleOptions("step", step_epochs=1, step_factor=0.5),
    ).configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]  # fmt: skip
    assert [stepped(step) for step in (9, 10, 19, 20, 39)] == [1, 0.5, 0.5, 0.25, 0.125]


def test_learning_rate_of_a_training_without_steps_or_epochs():
    made = logging(Classify(class_names=["a", "b"]), nn.Linear(2, 2), optimizer=OptimizerOptions("SGD", lr=0.2))
    made._trainer = SimpleNamespace(estimated_stepping_batches=0, max_epochs=None)
    assert made.configure_optimizers()["lr_scheduler"]["scheduler"].get_last_lr() == [0.2, 0.2]


def unfrozen(network, epoch, unfreezing=True, epochs=4):
    """Names of the parameters that are trained in an epoch."""
    made = logging(Classify(class_names=["a", "b"]), network, epoch, unfreezing=unfreezing)
    made._trainer.max_epochs = epochs
    network.train()
    made.on_train_epoch_start()
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_sections_are_thawed_from_the_last_to_the_first():
    """Parameters of the sections, from the last: 20, 8 and 20 of 48. They are thawed in epochs 0, round(4·20/48) = 2 and
    round(4·28/48) = 2."""
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))
    assert unfrozen(network, 0) == unfrozen(network, 1) == ["2.weight", "2.bias"]
    assert not network[1].training, "a frozen batch norm keeps its statistics"
    assert network[0].training
    assert network[3].training, "one without parameters is never frozen"
    every = ["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"]
    assert unfrozen(network, 2) == every
    assert network[1].training
    assert unfrozen(network, 0, epochs=None) == every, "in a single epoch all are trained"
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert unfrozen(network, 3, unfreezing=False) == [], "nothing is changed unless it is asked for"


class Lenses:
    """Preprocessing that counts the lenses which it fits: one number each, the first pixel."""

    def __init__(self, lens_model=True):
        self.lens_model, self.fitted = lens_model, []

    def lenses(self, images, noise=None):
        self.fitted.append(images[:, 0, 0, 0].tolist())
        return images[:, 0, 0, :1] + 0.5

    def __call__(self, images, lenses=None, noise=None):
        return images if lenses is None else images * 0 + lenses[:, :, None, None]


def with_lenses(**options):
    made = SupervisedModule(Classify(class_names=["a", "b"]), nn.Flatten(), Lenses(**options), LearningOptions())
    made._trainer = SimpleNamespace(current_epoch=0, global_rank=0, max_epochs=3)
    return made


def test_lenses_of_training_and_validation_are_kept_apart():
    """Rows of both are counted from 0, so that the lens of one must not serve the other."""
    made = with_lenses()
    batch = {"image": IMAGES[:2], "row": torch.tensor([1, 0])}
    made.train()
    torch.testing.assert_close(made.prepared(batch)[:, 0, 0, 0], torch.tensor([0.5, 25.5]))
    made.prepared(batch)
    assert made.preprocessing.fitted == [[0.0, 25.0]], "once"
    other = {"image": IMAGES[4:6], "row": torch.tensor([0, 1])}
    made.eval()
    torch.testing.assert_close(made.prepared(other)[:, 0, 0, 0], torch.tensor([100.5, 125.5]))
    made.prepared(other)
    assert made.preprocessing.fitted == [[0.0, 25.0], [100.0, 125.0]]
    checkpoint = {}
    made.on_save_checkpoint(checkpoint)
    assert checkpoint["lenses"].tolist() == [[25.5], [0.5]], "those of training, by row"
    again = with_lenses().train()
    again.on_load_checkpoint(checkpoint)
    torch.testing.assert_close(again.prepared(batch)[:, 0, 0, 0], torch.tensor([0.5, 25.5]))
    assert again.preprocessing.fitted == []


def test_no_lens_is_fitted_without_rows_or_where_none_is_asked_for():
    made = with_lenses()
    assert torch.equal(made.prepared({"image": IMAGES}), IMAGES)
    made = with_lenses(lens_model=False)
    assert torch.equal(made.prepared({"image": IMAGES, "row": torch.arange(8)}), IMAGES)
    assert made.preprocessing.fitted == []
    made.on_load_checkpoint({})  # of a version that kept none
    checkpoint = {}
    made.on_save_checkpoint(checkpoint)
    assert len(checkpoint["lenses"]) == 0


@dataclass(frozen=True)
class Paired(Regress):
    """A regression whose targets are images."""

    @property
    def needs(self):
        return Needs(pairs=True)


def test_pairs_are_turned_alike_and_differently_in_the_next_batch():
    made = SupervisedModule(
        Paired("m"), nn.Flatten(), Preprocessing(stretch="none"), LearningOptions(augmentation="dihedral", seed=1)
    )
    made._trainer = SimpleNamespace(current_epoch=0, global_rank=0, max_epochs=3)
    made.on_train_epoch_start()
    batch = {"image": IMAGES, "target": (3 * IMAGES).double()}
    images, targets = made.augmented(batch)
    assert targets.dtype == torch.float32
    assert torch.equal(targets, 3 * images)
    assert not torch.equal(images, IMAGES)
    assert not torch.equal(made.augmented(batch)[0], images)


def test_processes_augment_differently():
    turned = []
    for rank in (0, 1):
        made = module(seed=1)
        made._trainer.global_rank = rank
        made.on_train_epoch_start()
        turned.append(made.augmented(BATCH)[0])
    assert not torch.equal(*turned)


def test_noise_of_a_batch_goes_into_the_fit_and_its_residual():
    """Lenses are fitted to the images that are new, with their own noise."""
    seen = []

    class Noisy(Lenses):
        def lenses(self, images, noise=None):
            seen.append(noise.tolist())
            return super().lenses(images, noise)

        def __call__(self, images, lenses=None, noise=None):
            return super().__call__(images, lenses) / noise[:, :, None, None]

    made = SupervisedModule(Classify(class_names=["a", "b"]), nn.Flatten(), Noisy(), LearningOptions())
    made._trainer = SimpleNamespace(current_epoch=0, global_rank=0, max_epochs=3)
    noise = torch.arange(1.0, 9)[:, None]
    made.prepared({"image": IMAGES[:2], "row": torch.tensor([0, 1]), "noise": noise[:2]})
    found = made.prepared({"image": IMAGES[1:4], "row": torch.tensor([1, 2, 3]), "noise": noise[1:4]})
    assert seen == [[[1.0], [2.0]], [[3.0], [4.0]]]
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([25.5 / 2, 50.5 / 3, 75.5 / 4]))
