"""How fast scenes are simulated, noise included, and how fast lenstronomy renders the same lenses without noise.

    python benchmarks/scenes.py                     # two threads; a minute a preset
    python benchmarks/scenes.py finding-hsc --images 2048

lenstronomy samples at centres of as many sub-pixels, which is less than darklens does (it divides those in which light is
steep), and convolves each band on whole pixels, which is its default. It is timed on lenses of the class ``lens`` alone,
in one process.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from darklens.simulation import ScenePreset, Simulator, list_presets, load_preset
from darklens.simulation.columns import select
from darklens.simulation.scenes.rendering import Optics, gather
from darklens.training.job import machine


def darklens_rate(name: str, images: int) -> float:
    """Images a second of `Simulator.blocks`, all of PyTorch's threads."""
    simulator = Simulator(name, seed=1)
    next(simulator.blocks(64))
    start = time.perf_counter()
    done = sum(len(block) for block, _ in simulator.blocks(images, start=64))
    return done / (time.perf_counter() - start)


def lenstronomy_rate(preset: ScenePreset, images: int) -> float:
    """Images a second of lenstronomy, all bands of each."""
    from lenstronomy.Data.imaging_data import ImageData
    from lenstronomy.Data.psf import PSF
    from lenstronomy.ImSim.image_model import ImageModel
    from lenstronomy.LensModel.lens_model import LensModel
    from lenstronomy.LightModel.light_model import LightModel
    from lenstronomy.Util import simulation_util

    simulator = Simulator(preset, seed=1)
    rows = simulator.renderer.draw(1, 0)
    columns = select(rows, np.flatnonzero(np.asarray(rows["object"]) == "lens")[:images])
    count = len(columns["id"])
    found = gather(columns, list(preset.bands), count)
    optics = Optics(preset)
    sersic = LightModel(["SERSIC_ELLIPSE"])
    start = time.perf_counter()
    for image in range(count):
        for number, band in enumerate(preset.bands):
            light: dict[float, list[dict[str, Any]]] = {0.0: [], 1.0: []}
            for k in range(*found.starts[image : image + 2]):
                value = {name: float(values[k]) for name, values in found.values.items()}
                shape = {name: value[name] for name in ("R_sersic", "n_sersic", "e1", "e2")}
                shape |= {"amp": 1.0, "center_x": value["x"], "center_y": value["y"]}
                flux = 10 ** (-0.4 * (found.magnitudes[k, number] - preset.bands[band].zero_point))
                light[value["lensed"]].append(shape | {"amp": flux / sersic.total_flux([shape])[0]})
            own = {name: float(columns[name][image]) for name in ("theta_E", "e1", "e2", "gamma1", "gamma2")}
            sie = {name: own[name] for name in ("theta_E", "e1", "e2")}
            sie |= {f"center_{axis}": float(columns[f"lens_{axis}"][image]) for axis in "xy"}
            kernel = optics.kernels(band, select(columns, np.array([image])), 1)[0].numpy()
            model = ImageModel(
                ImageData(**simulation_util.data_configure_simple(preset.pixels, preset.pixel_scale)),
                PSF(psf_type="PIXEL", kernel_point_source=kernel),
                lens_model_class=LensModel(["SIE", "SHEAR"]),
                source_model_class=LightModel(["SERSIC_ELLIPSE"] * len(light[1.0])),
                lens_light_model_class=LightModel(["SERSIC_ELLIPSE"] * len(light[0.0])),
                kwargs_numerics={"supersampling_factor": preset.supersampling, "supersampling_convolution": False},
            )
            model.image([sie, {"gamma1": own["gamma1"], "gamma2": own["gamma2"]}], light[1.0], light[0.0])
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--images", type=int, default=1024)
    options = parser.parse_args()
    print(f"{machine()}, {torch.get_num_threads()} threads")
    loaded = [load_preset(name) for name in options.presets or list_presets()]
    for preset in loaded:
        if not isinstance(preset, ScenePreset):
            continue
        rate, theirs = darklens_rate(preset.name, options.images), lenstronomy_rate(preset, 24)
        bands = len(preset.bands)
        print(
            f"{preset.name}: {rate:.0f} images/s, {rate * bands:.0f} bands/s; lenstronomy in one process {theirs:.2f} "
            f"images/s; ratio {rate / theirs:.0f}"
        )


if __name__ == "__main__":
    main()
