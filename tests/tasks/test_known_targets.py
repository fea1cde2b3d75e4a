"""Targets of a user's own task: one for each image, in the form that outputs have."""

import numpy as np
import polars as pl
import pytest

from darklens.data.dataset import Cutouts, DatasetInfo
from darklens.errors import UserCodeError
from darklens.tasks.base import known_targets

IMAGES = Cutouts(
    np.arange(5, dtype=np.float32).reshape(5, 1, 1, 1),
    pl.DataFrame({"id": list("abcde"), "x": [3, None, 1, None, 7]}),
    DatasetInfo("mine"),
)


class Own:
    def __init__(self, targets):
        self.targets = targets


def test_unknown_ones_are_left_out_with_their_images():
    cutouts, targets = known_targets(Own(lambda images: images.values("x")[:, None]), IMAGES)
    assert cutouts.ids == ["a", "c", "e"]
    assert cutouts.images[:].ravel().tolist() == [0, 2, 4]
    assert targets.tolist() == [[3], [1], [7]]
    cutouts, targets = known_targets(Own(lambda images: np.arange(len(images))), IMAGES)
    assert (len(cutouts), targets.tolist()) == (5, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            lambda images: images.catalog["x"].drop_nulls().to_numpy(),
            r"shape \(3,\) and type int64; expected a number,",
        ),
        (lambda images: np.zeros((7, 1)), r"have shape \(7, 1\) .* for each of 5 images"),
        (lambda images: 3.0, r"have shape \(\)"),
        (lambda images: np.array(list("abcde")), "type <U1"),
        (lambda images: images.values("x"), r"fractions \(3,\).*return them as \(N, 1\)"),
        (lambda images: np.linspace(0, 1, 5), r"fractions \(5,\)"),
    ],
)
def test_targets_that_do_not_belong_to_the_images_are_refused(targets, message):
    with pytest.raises(UserCodeError, match=message):
        known_targets(Own(targets), IMAGES)
