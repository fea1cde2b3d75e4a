"""Fitted lenses are kept by row, and fitted once."""

import torch

from darklens.data.lens_cache import LensFitCache


class Fits:
    """Parameters that follow from the pixels: twice the mean and its negative; counts the images."""

    def __init__(self):
        self.images = []

    def __call__(self, images, noise=None):
        self.images += images[:, 0, 0, 0].tolist()
        return torch.stack([2 * images.mean((1, 2, 3)), -images.mean((1, 2, 3))], dim=1)


def images_of(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 2, 3)


def test_each_image_is_fitted_once_and_its_parameters_return_in_the_order_asked_for():
    cache, fit = LensFitCache(), Fits()
    first = cache.get_or_fit(torch.tensor([4, 1]), images_of(40, 10), fit)
    assert first.tolist() == [[80, -40], [20, -10]]
    second = cache.get_or_fit(torch.tensor([1, 7, 4, 0]), images_of(10, 70, 40, 5), fit)
    assert second.tolist() == [[20, -10], [140, -70], [80, -40], [10, -5]]
    assert fit.images == [40, 10, 70, 5]
    assert cache.get_or_fit(torch.tensor([8]), images_of(80), fit).tolist() == [[160, -80]]
    assert cache.parameters.shape == (9, 2)
    assert cache.parameters.isnan().all(1).tolist() == [False, False, True, True, False, True, True, False, False]


def test_parameters_of_a_checkpoint_are_used_and_missing_ones_fitted():
    stored = torch.tensor([[1.5, -2.5], [torch.nan, torch.nan], [3.5, torch.inf]])
    fit = Fits()
    found = LensFitCache(stored).get_or_fit(torch.tensor([2, 0, 1]), images_of(9, 8, 7), fit)
    assert found.tolist() == [[18, -9], [1.5, -2.5], [14, -7]]
    assert fit.images == [9, 7]
