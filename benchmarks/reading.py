"""How fast FITS cutouts are read, beside the bare file library on the same files, in turns; and predicted.

python benchmarks/reading.py                   # 600 files of one band, of five, and of five compressed in tiles
python benchmarks/reading.py --data FOLDER     # files of one's own, all of the same bands
python benchmarks/reading.py --models substructure-fair-euclid,substructure-fair-hst
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fitsio
import numpy as np

from darklens.data.identifiers import file_kind
from darklens.data.layouts import open_data
from darklens.data.readers.fits import FitsObjects
from darklens.inference.adapt import adaptation
from darklens.inference.model import load_model
from darklens.inference.predictions import predict_cutouts
from darklens.training.job import machine

BANDS = "grizy"
PREDICTED = "i"
PACKED = {"compress": "rice", "qlevel": 4}


KINDS = {"one band": ("i", {}), "five bands": (BANDS, {}), "five bands, compressed in tiles": (BANDS, PACKED)}
"""Bands of the files that are made, and how they are compressed."""


def make(folder: Path, count: int, kind: str) -> None:
    """Write files as a survey has them: bands of 120 × 120 pixels with a WCS, each in an HDU of its own."""
    bands, compression = KINDS[kind]
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        with fitsio.FITS(str(folder / f"{number:06}.fits"), "rw") as file:
            file.write(None)
            for band in bands:
                header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -7e-5, "CDELT2": 7e-5, "MAGZERO": 25.0}
                pixels = rng.normal(0, 1, (120, 120)).astype(np.float32)
                file.write(pixels, header=header, extname=band, **compression)


def bare(paths: list[Path], hdus: list[int]) -> None:
    for path in paths:
        with fitsio.FITS(str(path)) as file:
            np.stack([file[number].read() for number in hdus])


def rate(function: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    function()
    return count / (time.perf_counter() - started)


def predicting(name: str, paths: list[Path], rounds: int) -> tuple[float, float]:
    """Images a second of a model on images that fit it already, and on the files, from opening them on."""
    model = load_model(name)
    folder, count = paths[0].parent, len(paths)
    cutouts = open_data(folder, bands=PREDICTED)
    adapt = adaptation(model.config, cutouts.info, cutouts.images.shape)
    images = adapt(cutouts.images[np.arange(count)])
    model.predict(images[:64])
    measured = [
        (
            rate(lambda: model.predict(images), count),
            rate(lambda: predict_cutouts(model, open_data(folder, bands=PREDICTED)), count),
        )
        for _ in range(rounds)
    ]
    network, from_folder = np.median(measured, axis=0)
    return float(network), float(from_folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of FITS files")
    parser.add_argument("--files", type=int, default=600, help="of each kind that is made")
    parser.add_argument("--models", help="trained models, with commas between, that predict the files too")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    names = options.models.split(",") if options.models else []
    print(f"{options.rounds} rounds in turns, on {machine()}")
    with tempfile.TemporaryDirectory() as place:
        if options.data is not None:
            measure(str(options.data), options.data, names, options.rounds)
            return
        for kind in KINDS:
            make(Path(place) / kind, options.files, kind)
            measure(kind, Path(place) / kind, names, options.rounds)


def measure(kind: str, folder: Path, names: list[str], rounds: int) -> None:
    """Print the rates of reading a folder, and of each model's prediction."""
    paths = sorted(path for path in folder.iterdir() if file_kind(path) == "fits")
    started = time.perf_counter()
    ours = FitsObjects([[path] for path in paths])
    opening = time.perf_counter() - started
    with fitsio.FITS(str(paths[0])) as file:
        hdus = [number for number in range(len(file)) if file[number].get_extname() in ours.plan.bands]
    rates = [
        (rate(lambda: bare(paths, hdus), len(paths)), rate(lambda: ours[np.arange(len(paths))], len(paths)))
        for _ in range(rounds)
    ]
    library, darklens = np.median(rates, axis=0)
    print(f"{kind}: {len(paths)} files, their headers once in {opening:.2f} s")
    print(f"  fitsio {library:.0f} files/s, darklens {darklens:.0f} files/s: {darklens / library:.2f} of it")
    for name in names:
        network, from_folder = predicting(name, paths, rounds)
        share = from_folder / network
        print(f"  {name}: {network:.1f} images/s in memory, {from_folder:.1f} from the folder: {share:.2f} of it")


if __name__ == "__main__":
    main()
