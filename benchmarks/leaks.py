"""How well does a catalogue tell lenses without an image? AUC of boosted trees on its columns alone, by cross-validation.

    python benchmarks/leaks.py                                        # two minutes
    python benchmarks/leaks.py --catalog mine.csv --label is_lens     # columns of your own

Without ``--catalog`` it is one that darklens simulates, first with columns like those of a challenge in which a catalogue
came with the images (redshift of the source, area within the Einstein radius, number of images of the source), then with
columns that a survey measures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

from darklens.data.catalog_inputs import ALL, fit_encoder
from darklens.data.leaks import LEAK, Leaks, find_leaks
from darklens.data.readers.catalogs import read_catalog
from darklens.simulation import Simulator, load_preset

TRUTHS = ("z_lens", "z_source", "ein_area", "n_source_im", "mag_eff", "sigma_v")
MEASURED = ("galaxy_magnitude_i", "galaxy_R_sersic", "galaxy_n_sersic", "psf_fwhm_i", "depth_i")


def with_challenge_columns(catalog: pl.DataFrame) -> pl.DataFrame:
    """Add area within the Einstein radius (arcsec²), number of images of the source, and its magnification, 0 of others.

    A singular isothermal sphere has two images of what lies within its Einstein radius, and one of what lies beyond.
    """
    apart = ((pl.col("source_x") - pl.col("lens_x")) ** 2 + (pl.col("source_y") - pl.col("lens_y")) ** 2).sqrt()
    images = pl.when(apart < pl.col("theta_E")).then(2).when(apart.is_not_null()).then(1).otherwise(0)
    return catalog.with_columns(
        ein_area=(np.pi * pl.col("theta_E") ** 2).fill_null(0.0),
        n_source_im=images,
        mag_eff=pl.col("magnification_estimate").fill_null(0.0),
    )


def measured(catalog: pl.DataFrame, columns: list[str] | str, label: str) -> Leaks:
    """Return how well columns of a catalogue tell its labels."""
    encoder = fit_encoder(catalog.drop(label), columns, "the catalogue").encoder
    labels = np.unique(catalog[label].cast(pl.String).to_numpy(), return_inverse=True)[1]
    return find_leaks(encoder, catalog, labels, "the catalogue")


def table(found: Leaks) -> str:
    """Return the AUC of each column and of all, in Markdown."""
    rows = [
        f"| `{name}` | {auc:.3f} | {'leaks' if name in found.named else ''} |" for name, auc in found.columns.items()
    ]
    whole = f"| all together | {found.whole:.3f} | {'leak' if found.whole >= LEAK else ''} |"
    return "\n".join(["| column | AUC | |", "| --- | --- | --- |", *rows, whole])


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="finding-easy")
    parser.add_argument("--count", type=int, default=1024, help="rows to simulate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--catalog", type=Path, help="a table of your own instead")
    parser.add_argument("--label", default="label", help="its column of labels")
    chosen = parser.parse_args()
    started = time.perf_counter()
    if chosen.catalog is not None:
        catalog = read_catalog(chosen.catalog)[0]
        label = chosen.label if chosen.label in catalog.columns else "label"
        print(table(measured(catalog, ALL, label)))
    else:
        rows = with_challenge_columns(Simulator(load_preset(chosen.preset), chosen.seed).catalog(chosen.count))
        for title, columns in (("truths", TRUTHS), ("measured", MEASURED)):
            print(f"\n{title}: {chosen.count:,} rows of {chosen.preset}, seed {chosen.seed}\n")
            print(table(measured(rows, list(columns), "label")))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
