import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from poisson_law import assert_poisson
from scipy import stats

from darklens.physics.counters import batched_gaussian_noise, batched_poisson, split_mix


def test_split_mix_has_its_published_numbers():
    """The test vector of the reference implementation for seed 1234567."""
    expected = np.array([6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431], np.uint64)
    assert_array_equal(split_mix(torch.tensor(1234567), torch.arange(4)).numpy().view(np.uint64), expected)


@pytest.mark.parametrize("mean", [0.02, 0.3, 3.05, 57.2, 79.99, 80.0, 600.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_poisson_numbers_of_a_batch_follow_their_distribution(mean, dtype):
    drawn = batched_poisson(torch.full((4, 250, 400), mean, dtype=dtype), torch.tensor([3, -7, 2**60, 11]))
    assert drawn.dtype == dtype
    assert_poisson(drawn.double().numpy().ravel(), float(torch.tensor(mean, dtype=dtype)))


def test_means_of_a_batch_keep_their_places():
    mean = torch.tensor([[[0.0, 3.0], [400.0, -2.0]], [[90.0, 7.0], [0.1, 20.0]]])
    drawn = torch.stack([batched_poisson(mean, torch.tensor([k, 10_000 + k])) for k in range(2000)])
    means = mean.clamp_min(0)
    assert ((drawn.mean(0) - means).abs() <= 5 * (means / 2000).sqrt()).all()
    assert (drawn[:, means == 0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_that_is_not_finite_has_no_number(dtype):
    mean = torch.tensor([[[3.0, float("nan")], [float("inf"), -float("inf")]]], dtype=dtype)
    drawn = batched_poisson(mean, torch.tensor([1]))
    assert drawn.dtype == dtype
    assert drawn.isnan().tolist() == [[[False, True], [True, True]]]
    assert drawn[0, 0, 0] == batched_poisson(mean.nan_to_num(1, 1, 1), torch.tensor([1]))[0, 0, 0]


def test_gaussian_noise_of_a_batch_is_normal_with_its_sigma():
    sigma = torch.tensor([0.3, 20.0])[:, None, None]
    noise = batched_gaussian_noise(torch.zeros(2, 300, 400), sigma, torch.tensor([5, 6]))
    for drawn, width in zip(noise, (0.3, 20.0), strict=True):
        assert stats.kstest(drawn.flatten().double(), stats.norm(scale=width).cdf).pvalue > 1e-4


def test_noise_of_an_image_follows_from_its_seed_alone():
    images, seeds = torch.full((3, 20, 30), 12.0), torch.tensor([1, 2, 3])
    for draw in (batched_poisson, lambda x, s: batched_gaussian_noise(x, torch.tensor(2.0), s)):
        together = draw(images, seeds)
        assert_array_equal(together[[2]], draw(images[:1], seeds[2:]))
        pairs = np.corrcoef(torch.cat([together, draw(images, seeds + 10)]).flatten(1).numpy())
        assert_allclose(pairs - np.eye(6), 0, atol=5 / np.sqrt(600))


def test_pixels_are_independent_of_their_neighbours():
    photons = batched_poisson(torch.full((1, 400, 400), 5.0), torch.tensor([1]))[0] - 5
    gaussian = batched_gaussian_noise(torch.zeros(1, 400, 400), torch.tensor(1.0), torch.tensor([1]))[0]
    for image in (photons / 5**0.5, gaussian):
        for shift in ((0, 1), (1, 0), (1, 1)):
            assert abs(float((image * image.roll(shift, (0, 1))).mean())) < 5 / 400
    assert abs(float((photons / 5**0.5 * gaussian).mean())) < 5 / 400
