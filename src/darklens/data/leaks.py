"""Find columns of a catalogue that tell the label by themselves, which a network would learn in the place of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from darklens.data.catalog_inputs import CatalogEncoder
from darklens.data.interactions import interacting_pairs
from darklens.errors import DataError

LEAK = 0.95
"""AUC from which on columns are taken to tell the label. A choice: magnitudes, sizes, seeing and depth together
reach 0.67 in the preset finding-hsc and 0.72 in finding-euclid (1024 rows), and truths of a simulation 1. With a lower
limit good colours would be refused; with a higher one, truths with a little noise would pass."""
MISSING_LEAK = 0.75
"""The same for whether a column has a value: 0.75 is reached if it is empty for half of one label and none of the other.
What fails to be measured depends on brightness, and so a little on the label; that gives less."""
CHANCE = 1e-3
"""Probability that any column of a catalogue without information is named, by the normal distribution of the rank sum,
corrected for the number of columns (Bonferroni). It keeps small catalogues from being refused by chance: below some ten
rows of each label nothing is named."""
FOLDS = 5
PAIRS = 3
"""Pairs of columns that trees are given alone, those that tell most by `interacting_pairs`. Trees of all columns look for
one good cut after the other, and miss two columns of which each alone says nothing."""
MOST_ROWS = 4000
"""Rows that are looked at, drawn at random: an AUC of 0.95 is then known to 0.005, and more rows take longer."""


@dataclass(frozen=True)
class Leaks:
    """How well the label is told without an image.

    Attributes
    ----------
    whole
        Cross-validated AUC of all columns together, or that of a pair of columns if it is higher; nan where there are too
        few rows.
    columns
        That of each column alone, by name.
    missing
        AUC of whether a column has a value, by name, of those with missing values.
    named
        What to say of each column that tells the label by itself, by name.
    whole_leaks
        Whether all columns together tell it.
    pairs
        AUC of pairs of columns that tell it together and not alone, by their names.
    """

    whole: float
    columns: Mapping[str, float]
    missing: Mapping[str, float]
    named: Mapping[str, str]
    whole_leaks: bool
    pairs: Mapping[str, float] = field(default_factory=dict)

    def message(self) -> str | None:
        """Return which columns tell the label, and how well; None if none does."""
        if self.named:
            what = ", ".join(f"{name} ({said})" for name, said in self.named.items())
            return (
                f"columns of the catalogue tell the label without an image: {what}; all together AUC {self.whole:.3f}"
            )
        if self.whole_leaks:
            best = sorted(self.columns, key=lambda name: -self.columns[name])[:3]
            what = ", ".join(f"{name} {self.columns[name]:.3f}" for name in best)
            return (
                f"the catalogue tells the label without an image: AUC {self.whole:.3f} of all columns together; the best "
                f"alone are {what}" + "".join(f"; {names} as a pair {auc:.3f}" for names, auc in self.pairs.items())
            )
        return None


def find_leaks(encoder: CatalogEncoder, catalog: pl.DataFrame, labels: np.ndarray, where: str, seed: int = 0) -> Leaks:
    """Cross-validate a classifier of boosted trees on the catalogue alone, and on each of its columns alone.

    Parameters
    ----------
    encoder
        Which columns are inputs of the network.
    catalog
        N training rows.
    labels
        Their label numbers (N,).
    where
        Names the data in errors.
    seed
        Of the rows that are looked at, and of the folds.

    Returns
    -------
    Leaks
        AUC of each label against all others, the highest of them.

    Raises
    ------
    DataError
        If a column does not hold what the encoder was fitted to.
    """
    rng = np.random.default_rng(seed)
    if len(labels) > MOST_ROWS:
        rows = np.sort(rng.permutation(len(labels))[:MOST_ROWS])
        catalog, labels = catalog[rows], labels[rows]
    parts = {column.name: CatalogEncoder([column]) for column in encoder.columns}
    inputs = {name: _with_nan(part, catalog, where) for name, part in parts.items()}
    tests = len(parts) + 1 + len(parts) * (len(parts) - 1) // 2
    whole, whole_sure = _cross_validated(np.concatenate(list(inputs.values()), axis=1), labels, seed, tests)
    columns: dict[str, float] = {}
    missing: dict[str, float] = {}
    named: dict[str, str] = {}
    for column in encoder.columns:
        auc, sure = _cross_validated(inputs[column.name], labels, seed, tests)
        columns[column.name] = auc
        if auc >= LEAK and sure:
            named[column.name] = f"AUC {auc:.3f}"
        if column.has_missing:
            empty = np.asarray(_is_missing(column.name, catalog), dtype=np.float64)
            auc, sure = _best_auc(np.stack([empty, -empty]), labels, tests)
            missing[column.name] = auc
            if auc >= MISSING_LEAK and sure:
                named[column.name] = f"AUC {columns[column.name]:.3f}, {auc:.3f} by whether it has a value alone"
    pairs: dict[str, float] = {}
    silent = [column for column in encoder.columns if column.name not in named]
    values = [inputs[column.name] if column.mean is None else inputs[column.name][:, 0] for column in silent]
    for first, second in [] if np.isnan(whole) else interacting_pairs(values, labels, PAIRS):
        names = silent[first].name, silent[second].name
        both = np.concatenate([inputs[name] for name in names], axis=1)
        auc, sure = _cross_validated(both, labels, seed, tests, leaves=31)
        if sure and auc > whole:
            whole, whole_sure = auc, True
        if sure and auc >= LEAK:
            pairs[" and ".join(names)] = auc
    return Leaks(whole, columns, missing, named, bool(whole >= LEAK and whole_sure), pairs)


def check_leaks(leaks: Leaks, where: str, *, allowed: bool) -> list[str]:
    """Refuse a catalogue that tells the label, or say so if the user allows it.

    Parameters
    ----------
    leaks
        What `find_leaks` found.
    where
        Names the data in the message.
    allowed
        Whether such columns are wanted all the same.

    Returns
    -------
    list of str
        What to say: of leaks that are allowed, or how well the catalogue alone does.

    Raises
    ------
    DataError
        If columns tell the label, and ``allowed`` is not set.
    """
    message = leaks.message()
    if message is None:
        if np.isnan(leaks.whole):
            return ["too few training rows of a label to tell whether the catalogue alone tells it"]
        return [f"the catalogue alone, without an image, tells the label with an AUC of {leaks.whole:.3f}"]
    if allowed:
        return [f"{message}. They are used all the same, as --allow_leaks says"]
    raise DataError(
        f"{where}: {message}. A network would learn them in the place of the images. Leave them out of "
        "--inputs.columns, or say --allow_leaks true if they are known of objects whose label is not"
    )


def _is_missing(name: str, catalog: pl.DataFrame) -> np.ndarray:
    series = catalog[name]
    if series.dtype.is_float():
        series = series.fill_nan(None)
    elif series.dtype == pl.String:
        series = series.str.strip_chars().replace("", None)
    return series.is_null().to_numpy()


def _with_nan(encoder: CatalogEncoder, catalog: pl.DataFrame, where: str) -> np.ndarray:
    """The inputs of one column, with nan where a number has no value, which trees can tell from others."""
    found = encoder.encode(catalog, where).astype(np.float64)
    column = encoder.columns[0]
    if column.mean is not None:
        found[_is_missing(column.name, catalog), 0] = np.nan
    return found


def _cross_validated(
    inputs: np.ndarray, labels: np.ndarray, seed: int, tests: int, *, leaves: int = 8
) -> tuple[float, bool]:
    """AUC of predictions for rows that were not learned from, and whether chance cannot explain it."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) < 2 or counts.min() < FOLDS:
        return float("nan"), False
    scores = np.zeros((len(classes), len(labels)))
    leaf = int(np.clip(len(labels) // 40, 2, 20))  # small catalogues have to be split at all
    for learned, held_out in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(inputs, labels):
        trees = HistGradientBoostingClassifier(
            max_iter=30, max_leaf_nodes=leaves, min_samples_leaf=leaf, early_stopping=False, random_state=seed
        )
        scores[:, held_out] = trees.fit(inputs[learned], labels[learned]).predict_proba(inputs[held_out]).T
    return _best_auc(scores, labels, tests, classes)


def _best_auc(
    scores: np.ndarray, labels: np.ndarray, tests: int, classes: Sequence[int] | np.ndarray | None = None
) -> tuple[float, bool]:
    """The highest AUC of scores (S, N), and whether it is above what chance explains.

    Without ``classes`` each score is tried for each label; with them, score k is that of class k.
    """
    from scipy.special import ndtr
    from scipy.stats import rankdata

    known = np.unique(labels)
    pairs = (
        [(score, label) for score in scores for label in known]
        if classes is None
        else zip(scores, classes, strict=True)
    )
    best, sure = 0.0, False
    for score, label in pairs:
        is_label = labels == label
        positives, negatives = int(is_label.sum()), int((~is_label).sum())
        if not positives or not negatives:
            continue
        ranks = rankdata(score)
        auc = (ranks[is_label].sum() - positives * (positives + 1) / 2) / (positives * negatives)
        # Of the rank sum without information, with ties as if there were none: then it is too wide, never too narrow.
        deviation = np.sqrt((positives + negatives + 1) / (12 * positives * negatives))
        if auc > best:
            best = float(auc)
            sure = bool(ndtr(-(auc - 0.5) / deviation) * tests * len(known) < CHANCE)
    return best, sure
