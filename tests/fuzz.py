"""Damage small valid files of every kind at random, open them, and count what comes of it.

    python tests/fuzz.py --mutations 10000 --seed 0

A damaged file has to be read, or refused with a `DarklensError` that names it; a traceback, an error without the name, or
the end of the process is a fault. Each file is opened in a process of its own kind of limits: a crash ends the process,
which has said at which mutation it was, and another goes on with the next.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

MEMORY = 3 * 2**30
"""Bytes of address space that opening a file may take beyond what the libraries have."""
SECONDS = 60
"""Processor time that one file may take; more counts as a crash."""
GOOD = ("read", "refused")
DIGITS = b"0123456789"
MINUS_ONE = b"\xff\xff\xff\xff"
FOLDERS = ("table", "dataset", "model", "lens-model")
KINDS = ["npy", "pair", "buffer", "png", "fits", "tiles", "hcompress", "gzip", "hdf5", *FOLDERS]


def make_files(folder: Path) -> dict[str, Path]:
    """Write a small valid file or folder of every kind; return their paths by kind."""
    import polars as pl
    from astropy.io import fits
    from PIL import Image

    rng = np.random.default_rng(0)
    images = rng.normal(10, 1, (4, 1, 16, 16)).astype(np.float32)
    made = {name: folder / name for name in ("npy/a.npy", "pair/a.npy", "png/a.png", "fits/a.fits", "tiles/a.fits")}
    made |= {
        name: folder / name
        for name in ("gzip/a.fits.gz", "hcompress/a.fits", "hdf5/a.h5", "table/a.npy", "buffer/a.npy")
    }
    for path in made.values():
        path.parent.mkdir(parents=True)
    np.save(made["npy/a.npy"], images)
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = images[0, 0].astype(np.float64), 1e-23
    np.save(made["pair/a.npy"], pair, allow_pickle=True)
    # Protocol 5 makes arrays of bytes by another function.
    header = made["pair/a.npy"].read_bytes()[:128]
    made["buffer/a.npy"].write_bytes(header + pickle.dumps(pair, protocol=5))
    Image.fromarray((images[0, 0] * 10).astype(np.uint8)).save(made["png/a.png"])
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.1, "CRVAL2": 2.2, "CRPIX1": 8.5, "CRPIX2": 8.5}
    header |= {"CD1_1": -2.7e-05, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 2.7e-05, "MAGZERO": 24.6}
    plane, rms = images[0, 0], fits.ImageHDU(images[1, 0], name="VIS_RMS")
    image = fits.ImageHDU(plane, fits.Header(header), name="VIS")
    for name in ("fits/a.fits", "gzip/a.fits.gz"):
        fits.HDUList([fits.PrimaryHDU(), image, rms]).writeto(made[name])
    for name, kind in (("tiles/a.fits", "RICE_1"), ("hcompress/a.fits", "HCOMPRESS_1")):
        packed = fits.CompImageHDU(
            (plane * 100).astype(np.int32), fits.Header(header), name="VIS", compression_type=kind
        )
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(made[name])
    _write_hdf5(made["hdf5/a.h5"], images)
    for number in range(3):
        np.save(made["table/a.npy"].with_stem(f"a{number}"), images[number, 0])
    catalog = pl.DataFrame({"id": ["a0", "a1", "a2"], "label": ["cdm", "axion", "cdm"], "z": [0.1, 0.2, 0.3]})
    catalog.write_parquet(made["table/a.npy"].with_name("catalog.parquet"))
    made = {name.partition("/")[0]: path for name, path in made.items()}
    made["table"] = made["table"].parent
    made["dataset"] = _write_dataset(folder / "dataset", images)
    made["model"] = make_model(folder / "model", lens=False)
    made["lens-model"] = make_model(folder / "lens-model", lens=True)
    return made


def _write_hdf5(path: Path, images: np.ndarray) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(1, 1, 16, 16), compression="gzip")
        file.create_dataset("small", data=images[:, 0, :8, :8])
        file.create_dataset("label", data=["cdm", "axion", "cdm", "axion"])
        file.create_dataset("z", data=np.linspace(0, 1, 4))


def _write_dataset(path: Path, images: np.ndarray) -> Path:
    import polars as pl

    from darklens.data.dataset import DatasetInfo, DatasetWriter

    writer = DatasetWriter(path, images.shape, images.dtype, fingerprint={})
    writer.write(0, images)
    catalog = pl.DataFrame(
        {"id": ["0", "1", "2", "3"], "label": ["cdm", "axion", "cdm", "axion"], "z": [0.1, 0.2, 0.3, 1]}
    )
    info = DatasetInfo("a telescope", ["cdm", "axion"], ["VIS"], 0.1, [24.6], "counts", seed=1, notes=["made up"])
    return writer.finish(catalog, info)


def make_model(path: Path, lens: bool) -> Path:
    """Write a tiny untrained model: a classifier, or a regression that fits a lens to each image. Return its folder."""
    import torch

    from darklens.data.preprocessing import Preprocessing
    from darklens.inference.model import ModelConfig, TrainedModel, save_model
    from darklens.inference.outliers import OutlierScore
    from darklens.models.registry import build_network
    from darklens.physics.smoothfit import broad_prior
    from darklens.tasks.base import Task
    from darklens.tasks.classify import Classify
    from darklens.tasks.registry import task_content
    from darklens.tasks.regress import Regress

    torch.manual_seed(0)
    preprocessing: dict[str, object] = {"crop": 14, "stretch": "sqrt", "center": 3.0, "scale": 1.5}
    if lens:
        prior = broad_prior()
        table = {"mean": prior.mean.tolist(), "precision": prior.precision.tolist(), "blur": 0.05}
        preprocessing |= {"lens_model": True, "lens_prior": table}
    channels = 3 if lens else 1
    options = {"name": "compact", "widths": [4, 8], "blocks": [0, 1]}
    network = build_network("compact", channels, 1 if lens else 2, {"widths": [4, 8], "blocks": [0, 1]})
    task: Task = Regress("mass", center=[1.0], scale=[0.5])
    kind = {"outputs": ["mass"]}
    if not lens:
        task, names = Classify(class_names=["cdm", "axion"]), ["cdm", "axion"]
        kind = {"outputs": names, "classes": names, "calibration": {"temperature": 1.2, "scores": [0.1, 0.2, 0.3]}}
    content = task_content(task, "regress" if lens else "classify")
    config = ModelConfig(content, options, preprocessing, 1, 16, pixel_scale=0.1, **kind)
    features, statistics = torch.randn(64, 8), torch.randn(64, 5 * channels)
    outliers = OutlierScore.fit(features, statistics, (features, statistics))
    assert Preprocessing(**preprocessing)
    save_model(path, TrainedModel(config, network, task, outliers=outliers), "A model.\n")
    (path / "README.md").unlink()
    return path


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Return the data with one to three random damages: bits, bytes and digits changed, parts cut, inserted, repeated."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 64))
        # Headers are a small part of a file, and the one that is believed.
        at = at if rng.random() < 0.5 else at % 512
        digits = [i for i, byte in enumerate(out[:4096]) if byte in DIGITS]
        match rng.integers(12):
            case 0 | 6 | 7:
                out[at] ^= 1 << int(rng.integers(8))
            case 1 | 8:
                out[at] = int(rng.integers(256))
            case 2:
                del out[at:]
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = rng.bytes(length)
            case 5:
                out[at:at] = out[at : at + length]
            case 9 if MINUS_ONE in out:
                # The size and alignment of a dtype in a pickle, which numpy itself believes.
                at = int(rng.choice([match.start() for match in re.finditer(MINUS_ONE, out)]))
                out[at : at + 4] = bytes([*rng.bytes(2), 0, 0])
            case _ if digits:
                at = digits[int(rng.integers(len(digits)))]
                out[at : at + int(rng.integers(2))] = bytes(rng.choice(list(DIGITS), int(rng.integers(1, 6))).tolist())
            case _:
                out[at] = 255
    return bytes(out)


def damaged_copy(kind: str, made: Path, folder: Path, rng: np.random.Generator) -> Path:
    """Write a copy of a valid file or folder with one of its files damaged; return its path."""
    copy = folder / made.name
    if not made.is_dir():
        copy.write_bytes(mutate(made.read_bytes(), rng))
        return copy
    shutil.copytree(made, copy)
    files = sorted(copy.iterdir())
    victim = files[int(rng.integers(len(files)))]
    victim.write_bytes(mutate(victim.read_bytes(), rng))
    return copy


def open_it(kind: str, path: Path) -> None:
    """Use a file as darklens does: predict with a model; look at data and read all of its images and columns."""
    from darklens.data.layouts import open_data
    from darklens.data.readers.fits import read_fits_cutout
    from darklens.inference.model import load_model
    from darklens.inference.predictions import predict_cutouts, prediction_table
    from darklens.workflows.look import look

    if "model" in kind:
        model = load_model(path)
        cutouts = open_data(path.parents[1] / "made" / "npy" / "a.npy")
        predicted = predict_cutouts(model, cutouts)
        sets = model.task.prediction_sets(predicted.prediction.array, model.calibration, 0.9)
        prediction_table(predicted, cutouts, model.task, sets=sets)
        return
    look(path)
    cutouts = open_data(path)
    np.asarray(cutouts.images[np.arange(len(cutouts))], dtype=np.float32)
    cutouts.catalog.rows()
    if "label" in cutouts.catalog.columns:
        cutouts.labels(cutouts.info.classes)
    if path.name.endswith((".fits", ".fits.gz")):
        read_fits_cutout(path)


def work(folder: Path, kinds: list[str], seed: int, first: int, last: int) -> None:
    """Open mutations ``first`` to ``last``, saying before each that it begins and after each how it ended."""
    import torch

    from darklens.errors import DarklensError
    from darklens.inference.shipped import shipped_models
    from darklens.workflows import following

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # To read the models of the package again for every file takes longer than the file; one of them is enough.
    one = "substructure-model-1"
    first_model = {one: shipped_models()[one]}
    following.shipped_models = lambda: first_model
    made = {path.name: path for path in (folder / "made").iterdir()}
    sources = {kind: made[kind] if kind in FOLDERS else next(made[kind].iterdir()) for kind in kinds}
    for kind in kinds:
        open_it(kind, sources[kind])  # imports what it needs, and shows that it is valid
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
    for number in range(first, last):
        kind = kinds[number % len(kinds)]
        place = folder / f"case{number}"
        place.mkdir()
        path = damaged_copy(kind, sources[kind], place, np.random.default_rng([seed, number]))
        print(f"begin {number}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        outcome, detail = "read", ""
        try:
            open_it(kind, path)
        except DarklensError as error:
            detail = f"{type(error).__name__}: {error}"
            outcome = "refused" if place.name in str(error) else "unnamed"
        except BaseException as error:
            outcome, detail = "traceback", "".join(traceback.format_exception(error)[-3:])
        signal.setitimer(signal.ITIMER_PROF, 0)
        if outcome in GOOD:
            shutil.rmtree(place)
        print("end", json.dumps([number, outcome, detail]), flush=True)


def fuzz(folder: Path, mutations: int, seed: int, kinds: list[str] = KINDS) -> tuple[Counter, list[str]]:
    """Open ``mutations`` damaged files of the kinds in turn.

    Returns
    -------
    Counts of (kind, outcome), an outcome being read, refused, unnamed, traceback or crash; and a text for each fault,
    whose file is left in ``folder``.
    """
    (folder / "made").mkdir()
    make_files(folder / "made")
    counts: Counter = Counter()
    faults: list[str] = []
    begun = -1
    while begun + 1 < mutations:
        command = [sys.executable, __file__, "--worker", str(folder), "--seed", str(seed), "--kinds", ",".join(kinds)]
        command += ["--first", str(begun + 1), "--mutations", str(mutations)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            start, ended = begun, begun
            for line in process.stdout:
                word, _, rest = line.partition(" ")
                if word == "begin":
                    begun = int(rest)
                elif word == "end":
                    ended, outcome, detail = json.loads(rest)
                    counts[kinds[ended % len(kinds)], outcome] += 1
                    if outcome not in GOOD:
                        faults.append(f"{kinds[ended % len(kinds)]} {ended} {outcome}: {detail}")
        if begun == start:
            raise RuntimeError("the valid files cannot be opened: run with --worker to see why")
        if ended < begun:
            kind = kinds[begun % len(kinds)]
            counts[kind, "crash"] += 1
            faults.append(f"{kind} {begun} crash: the process ended with {process.returncode}")
    return counts, faults


def main() -> None:
    """Fuzz and print the counts of each kind, then all faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker, options.kinds, options.seed, options.first, options.mutations)
        return
    folder = Path(tempfile.mkdtemp(prefix="fuzz"))
    counts, faults = fuzz(folder, options.mutations, options.seed, options.kinds)
    for kind in options.kinds:
        print(f"{kind:12}", ", ".join(f"{outcome} {n}" for (of, outcome), n in sorted(counts.items()) if of == kind))
    print("\n".join([f"{len(faults)} faults, whose files are in {folder}" if faults else "no faults", *faults]))


if __name__ == "__main__":
    main()
