"""Intervals and paired differences against theory and scipy."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import bootstrap, norm
from scipy.stats import t as student

from darklens.errors import DarklensError
from darklens.evaluation.bootstrap import (
    CalibratedRange,
    Interval,
    Metric,
    current_figures,
    figure_text,
    holm,
    intervals,
    intervals_over_seeds,
    mean_statistic,
    paired_differences,
    range_text,
)
from darklens.evaluation.classification import auc_statistic


def mean_of(values, key="mean"):
    return Metric(key, "Mean", mean_statistic(values))


def test_interval_of_a_mean_agrees_with_scipy():
    values = np.random.default_rng(0).exponential(1, 500)
    ours = intervals([mean_of(values)], 500, rounds=4000)["mean"]
    theirs = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)
    assert ours.n == 500


def test_seed_decides_the_resamples_and_chunks_do_not(monkeypatch):
    values = np.random.default_rng(0).exponential(1, 100)
    first = intervals([mean_of(values)], 100, seed=1)
    monkeypatch.setattr("darklens.evaluation.bootstrap.WEIGHTS_AT_A_TIME", 700)
    assert intervals([mean_of(values)], 100, seed=1) == first
    assert intervals([mean_of(values)], 100, seed=2) != first


def test_interval_of_an_auc_covers_the_truth_as_often_as_it_says():
    """The AUC of two unit Gaussians one apart is Φ(1/√2) = 0.7602."""
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        positive = np.repeat([0.0, 1.0], 60)
        scores = rng.normal(0, 1, 120) + positive
        metric = Metric("auc", "AUC", auc_statistic(scores, positive))
        found = intervals([metric], 120, seed, rounds=300)["auc"]
        covered += found.low <= 0.7602499 <= found.high
    assert 0.88 <= covered / 200 <= 0.985


def test_resamples_without_a_value_are_left_out():
    positive = np.array([1.0, 0, 0, 0])  # a third of all resamples have no positive
    metric = Metric("auc", "AUC", auc_statistic(np.array([0.9, 0.1, 0.2, 0.3]), positive))
    found = intervals([metric], 4, rounds=200)["auc"]
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_paired_difference_of_means_agrees_with_the_normal_approximation():
    """Of values that share most of their scatter: paired, the interval is that of the mean of the differences."""
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 5, 800)
    a, b = shared + rng.normal(0.06, 0.5, 800), shared + rng.normal(0, 0.5, 800)
    found = paired_differences({"a": mean_of(a), "b": mean_of(b)}, 800, rounds=4000)[0]
    gap = a - b
    error = gap.std() / np.sqrt(800)
    assert (found.first, found.second) == ("a", "b")
    assert found.value == pytest.approx(gap.mean())
    assert found.low == pytest.approx(gap.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(gap.mean() + 1.96 * error, abs=0.1 * error)
    assert found.p == pytest.approx(2 * norm.sf(abs(gap.mean()) / error), abs=0.02)


def test_p_is_two_sided_and_symmetric():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 300), rng.normal(0.1, 1, 300)
    forward = paired_differences({"a": mean_of(a), "b": mean_of(b)}, 300)[0]
    back = paired_differences({"b": mean_of(b), "a": mean_of(a)}, 300)[0]
    assert (back.value, back.low, back.high, back.p) == pytest.approx(
        (-forward.value, -forward.high, -forward.low, forward.p)
    )
    same = paired_differences({"a": mean_of(a), "b": mean_of(a)}, 300)[0]
    assert (same.value, same.p) == (0, 1)
    assert paired_differences({"a": mean_of(a), "b": mean_of(a - 3)}, 300)[0].p == 1 / 1000


def test_figures_as_text_and_as_they_are_stored():
    plain, calibrated = (
        Interval(0.5, 0.4, 0.65, 20),
        Interval(0.0095, np.nan, np.nan, 20, CalibratedRange(0.004, 0.009, 0.02)),
    )
    assert plain.record() == {"value": 0.5, "low": 0.4, "high": 0.65, "n": 20}
    assert calibrated.record() == {"value": 0.0095, "n": 20, "if_calibrated": {"low": 0.004, "high": 0.009, "p": 0.02}}
    assert [str(plain), range_text(plain.record())] == ["0.5000 [0.4000, 0.6500]", "0.4000 – 0.6500"]
    assert str(calibrated) == "0.0095 (0.0040 to 0.0090 if calibrated)"
    assert range_text(calibrated.record()) == "0.0040 – 0.0090 if calibrated"


def test_interval_of_a_calibration_error_of_an_earlier_version_is_left_out():
    stored = {
        "ece": {"value": 0.01, "low": 0.009, "high": 0.02, "n": 7},
        "auc": {"value": 1, "low": 0, "high": 1, "n": 7},
    }
    current = current_figures(stored)
    assert current == {"ece": {"value": 0.01, "n": 7}, "auc": stored["auc"]}
    assert "low" in stored["ece"], "what was given is left as it is"
    assert (figure_text(current["ece"]), range_text(current["ece"])) == ("0.0100", "–")
    new = {"ece": Interval(0.01, np.nan, np.nan, 7, CalibratedRange(0.1, 0.2, 0.3)).record()}
    assert current_figures(new) == new


def test_all_pairs_are_compared():
    values = {name: mean_of(np.full(10, float(i))) for i, name in enumerate("abc")}
    found = paired_differences(values, 10, rounds=120)
    assert [(d.first, d.second, d.value) for d in found] == [("a", "b", -1), ("a", "c", -2), ("b", "c", -1)]


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_holm_is_the_closure_of_bonferroni(number):
    """A hypothesis is rejected if every set of hypotheses that holds it is, by its smallest p value times its size."""
    for seed in range(20):
        p = np.random.default_rng(seed).choice([0.001, 0.01, 0.01, 0.03, 0.2, 0.9], number).tolist()
        sets = [s for size in range(1, number + 1) for s in itertools.combinations(range(number), size)]
        expected = [min(1, max(len(s) * min(p[j] for j in s) for s in sets if i in s)) for i in range(number)]
        assert holm(p) == pytest.approx(expected, rel=1e-12)


def test_holm_of_its_authors_steps():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_differences_have_a_p_value_that_is_corrected_for_their_number():
    rng = np.random.default_rng(8)
    shared = rng.normal(0, 1, 200)
    values = {name: mean_of(shared + rng.normal(shift, 1, 200)) for name, shift in (("a", 0), ("b", 0.2), ("c", 0.8))}
    found = paired_differences(values, 200)
    assert [d.p_holm for d in found] == holm([d.p for d in found])
    assert [d.p_holm > d.p for d in found] == [d.p < max(e.p for e in found) for d in found]
    (alone,) = paired_differences({name: values[name] for name in "ab"}, 200)
    assert alone.p_holm == alone.p


def test_resamples_must_be_enough_for_the_number_of_differences():
    values = {name: mean_of(np.arange(5.0) * i) for i, name in enumerate("abcd")}
    with pytest.raises(
        DarklensError, match=r"^239 resamples are too few for 6 differences: .* at least 240 are needed$"
    ):
        paired_differences(values, 5, rounds=239)
    assert len(paired_differences(values, 5, rounds=240)) == 6


def test_many_models_get_more_resamples_by_default():
    """Nine models are 36 pairs; all differ for certain, and the smallest p value of 1,440 resamples shows it."""
    found = paired_differences({str(i): mean_of(np.full(3, float(i))) for i in range(9)}, 3)
    assert {d.p for d in found} == {1 / 1440}
    assert {d.p_holm for d in found} == {0.025}


def test_one_training_has_the_interval_of_the_test_images_alone():
    values = np.random.default_rng(4).exponential(1, 80)
    calibrated = Metric("ece", "ECE", mean_statistic(values), calibrated=lambda seed, draws: np.linspace(0, 2, draws))
    metrics = [mean_of(values), calibrated]
    found = intervals_over_seeds([metrics], 80, seed=3)
    assert found == intervals(metrics, 80, seed=3)
    weights = np.random.default_rng(3).multinomial(80, np.full(80, 1 / 80), size=1000)
    low, high = np.quantile((weights * values).sum(1) / 80, [0.025, 0.975])
    assert found["mean"].record() == pytest.approx({"value": values.mean(), "low": low, "high": high, "n": 80})
    assert set(found["ece"].record()) == {"value", "n", "if_calibrated"}
    pairs = [{name: wrap(mean_of(values + shift)) for name, shift in zip("ab", ([0] * 80, values[::-1]), strict=True)}
             for wrap in (lambda each: each, lambda each: [each])]  # fmt: skip
    assert paired_differences(pairs[0], 80) == paired_differences(pairs[1], 80)


def test_interval_over_trainings_of_sure_images_is_that_of_student():
    """Without scatter of the images: mean ± t s / √S."""
    trainings = [[mean_of(np.full(9, value))] for value in (1.0, 2.0, 6.0)]
    found = intervals_over_seeds(trainings, 9, rounds=40_000)["mean"]
    half = student.ppf(0.975, 2) * np.std([1, 2, 6], ddof=1) / np.sqrt(3)
    assert (found.value, found.seeds) == (3, 3)
    assert found.scatter == pytest.approx(np.sqrt(7))
    assert [found.low, found.high] == pytest.approx([3 - half, 3 + half], rel=0.05)
    (gap,) = paired_differences({"a": [each for (each,) in trainings], "b": mean_of(np.full(9, 1.5))}, 9, rounds=40_000)
    assert gap.value == 1.5
    assert [gap.low, gap.high] == pytest.approx([1.5 - half, 1.5 + half], rel=0.05)
    assert gap.p == pytest.approx(2 * student.sf(1.5 / np.sqrt(7 / 3), 2), abs=0.01)


def test_calibration_error_of_several_trainings_has_their_scatter():
    def ece(value):
        return Metric("ece", "ECE", mean_statistic(np.full(4, value)), calibrated=lambda seed, draws: np.ones(draws))

    found = intervals_over_seeds([[mean_of(np.ones(4)), ece(0.01)], [ece(0.03), mean_of(np.ones(4))]], 4)[
        "ece"
    ].record()
    assert found == pytest.approx({"value": 0.02, "n": 4, "seeds": 2, "scatter": 0.02 / np.sqrt(2)})
    assert [figure_text(found), range_text(found)] == ["0.0200 ± 0.0141", "± 0.0141"]


def trained(rng, count, scatter, images):
    """Values (S, N) of N images in S trainings, which scatter from training to training as well."""
    return images + rng.normal(0, scatter, (count, 1))


@pytest.mark.parametrize(("count", "scatter"), [(3, 0.02), (3, 0.5), (5, 0.125)])
def test_interval_over_trainings_covers_the_truth_as_often_as_it_says(count, scatter):
    """The mean over all images and trainings, 0. That of 64 images scatters by 0.125; trainings less, more, or as much."""
    rng = np.random.default_rng(5)
    covered, alone = 0, 0
    for seed in range(500):
        values = trained(rng, count, scatter, rng.normal(0, 1, 64))
        found = intervals_over_seeds([[mean_of(each)] for each in values], 64, seed=seed, rounds=300)["mean"]
        covered += found.low <= 0 <= found.high
        alone += abs(values[0].mean()) < 1.96 * values[0].std() / 8
    assert 0.93 <= covered / 500 <= 0.97
    assert (alone / 500 < 0.9) == (scatter > 0.1), "what one training and the choice of the images would say"


@pytest.mark.parametrize(("count", "scatter", "most"), [(5, 0.05, 0.97), (3, 0.1, 0.995)])
def test_equal_recipes_hardly_ever_differ(count, scatter, most):
    """Two recipes of one skill: paired on the images, independent in their trainings; with three of them, cautious."""
    rng = np.random.default_rng(6)
    covered, real = 0, 0
    for seed in range(500):
        shared = rng.normal(0, 1, 64)
        values = {name: trained(rng, count, scatter, shared + rng.normal(0, 0.35, 64)) for name in "ab"}
        metrics = {name: [mean_of(each) for each in rows] for name, rows in values.items()}
        (gap,) = paired_differences(metrics, 64, seed, rounds=300)
        covered += gap.low <= 0 <= gap.high
        real += gap.p < 0.05
    assert 0.93 <= covered / 500 <= most
    assert 1 - most <= real / 500 <= 0.07


def test_no_interval_over_seeds_goes_beyond_what_a_metric_can_be():
    rng = np.random.default_rng(4)
    trainings = [rng.random(300) < share for share in (0.99, 0.4)]

    def interval(**ends):
        each = [[Metric("share", "Share", mean_statistic(right * 1.0), **ends)] for right in trainings]
        return intervals_over_seeds(each, 300)["share"]

    free, bounded, above = interval(), interval(perfect=1, worst=0), interval(perfect=1)
    assert free.low < 0
    assert free.high > 1
    assert (bounded.low, bounded.high) == (0, 1)
    assert (above.low, above.high) == (free.low, 1)
    assert interval(perfect=0, better="lower").low == 0
    assert interval(perfect=0.5, better="neither") == free


@pytest.mark.parametrize(
    ("value", "low", "high", "said"),
    [
        (0.9123, 0.9, 0.92, "0.9123 [0.9000, 0.9200]"),
        (0.99991, 0.9998, 1.0, "0.9999 [0.9998, 1.0000]"),
        (0.999981, 0.999978, 0.999984, "0.9999810 [0.9999780, 0.9999840]"),
        (7.123e-7, 7.0e-7, 7.4e-7, "7.12e-07 [7e-07, 7.4e-07]"),
        (1.0, 1.0, 1.0, "1.0000 [1.0000, 1.0000]"),
        (0.5, math.nan, math.nan, "0.5000 [nan, nan]"),
    ],
)
def test_narrow_intervals_are_not_hidden_by_four_decimals(value, low, high, said):
    assert figure_text({"value": value, "low": low, "high": high}) == said
