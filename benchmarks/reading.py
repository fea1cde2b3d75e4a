"""How fast FITS cutouts are read, beside the bare file library on the same files, in turns; and predicted.

python benchmarks/reading.py                   # 300 tile-compressed files of five bands, made for it
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


def make(folder: Path, count: int) -> None:
    """Write files as a survey has them: five bands of 120 × 120 pixels with a WCS, compressed in tiles."""
    rng = np.random.default_rng(0)
    for number in range(count):
        with fitsio.FITS(str(folder / f"{number:06}.fits"), "rw") as file:
            file.write(None)
            for band in BANDS:
                header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CDELT1": -7e-5, "CDELT2": 7e-5, "MAGZERO": 25.0}
                pixels = rng.normal(0, 1, (120, 120)).astype(np.float32)
                file.write(pixels, header=header, extname=band, compress="rice", qlevel=4)


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
    cutouts = open_data(folder, bands=BANDS[2])
    adapt = adaptation(model.config, cutouts.info, cutouts.images.shape)
    images = adapt(cutouts.images[np.arange(count)])
    model.predict(images[:64])
    measured = [
        (
            rate(lambda: model.predict(images), count),
            rate(lambda: predict_cutouts(model, open_data(folder, bands=BANDS[2])), count),
        )
        for _ in range(rounds)
    ]
    network, from_folder = np.median(measured, axis=0)
    return float(network), float(from_folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of FITS files")
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--models", help="trained models, with commas between, that predict the files too")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.data or Path(place)
        if options.data is None:
            make(folder, options.files)
        paths = sorted(path for path in folder.iterdir() if file_kind(path) == "fits")
        started = time.perf_counter()
        ours = FitsObjects([[path] for path in paths])
        opening = time.perf_counter() - started
        with fitsio.FITS(str(paths[0])) as file:
            hdus = [number for number in range(len(file)) if file[number].get_extname() in ours.bands]
        rounds = [
            (rate(lambda: bare(paths, hdus), len(paths)), rate(lambda: ours[np.arange(len(paths))], len(paths)))
            for _ in range(options.rounds)
        ]
        names = options.models.split(",") if options.models else []
        predicted = {name: predicting(name, paths, options.rounds) for name in names}
    library, darklens = np.median(rounds, axis=0)
    print(f"{len(paths)} files of {len(ours.bands)} bands, {options.rounds} rounds in turns, on {machine()}")
    print(f"headers of all files, once: {opening:.2f} s")
    print(f"fitsio {library:.0f} files/s, darklens {darklens:.0f} files/s: {darklens / library:.2f} of it")
    for name, (network, from_folder) in predicted.items():
        share = from_folder / network
        print(f"{name}: {network:.1f} images/s in memory, {from_folder:.1f} from the folder: {share:.2f} of it")


if __name__ == "__main__":
    main()
