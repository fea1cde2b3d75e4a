"""The Lightning module: what an epoch's seed decides, and what is logged."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from darklens.data.augmentation import transform
from darklens.data.preprocessing import Preprocessing
from darklens.tasks.classify import Classify
from darklens.tasks.optimization import LearningOptions
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
