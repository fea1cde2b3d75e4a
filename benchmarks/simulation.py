"""Simulation speed side by side: darklens, lenstronomy, caustics and jaxtronomy, one run, one machine.

    python benchmarks/simulation.py                       # about three minutes on two cores
    python benchmarks/simulation.py --preset fair-hst     # five

Model I with noise, an equal mix of the three classes. lenstronomy renders and adds noise as DeepLense does, in one
process and in two: once with the Einstein radii of every image computed from masses, as DeepLense's simulator does and
as darklens does in its own figure, and once with all parameters given for nothing. caustics (under vmap) and jaxtronomy
(under jit and vmap, its isothermal spheres in place of the point masses that it lacks) compute deflection and source
alone: no PSF, no noise. Contenders take turns, three rounds; medians are compared. With a GPU at hand its rate is
printed too.

Of another preset, lenstronomy renders the same scenes, all parameters given, in two processes: with the preset's own grid
of sub-pixels, and, as darklens samples adaptively there, with a uniform one of `UNIFORM` × `UNIFORM` rays in each pixel,
which is nearly as accurate (``benchmarks/convergence.py``). Classes with line vortices are left out: lenstronomy has none.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from darklens.simulation import Preset, Simulator, load_preset
from darklens.simulation.columns import to_frame
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset
from darklens.training.job import machine

SOURCE = {"R_sersic": 0.25, "n_sersic": 1.0, "amp": 20.0}
PIXELS, SCALE = 150, 0.05
UNIFORM = 8


def darklens_rate(simulator: Simulator, images: int) -> float:
    started = time.perf_counter()
    done = sum(len(made) for made, _ in simulator.blocks(images))
    if simulator.device.type == "cuda":
        torch.cuda.synchronize()
    return done / (time.perf_counter() - started)


def scenes_by_lenstronomy(given: tuple[str, int, list[dict[str, Any]]]) -> int:
    """Render rows of a preset with noise, with a number of sub-pixels along each side of a pixel."""
    import lenstronomy.Util.image_util as image_util
    import reference

    name, supersampling, rows = given
    preset = replace(load_preset(name), supersampling=supersampling)
    for row in rows:
        time_ = row["exposure_time"]
        image, background = reference.render(preset, row), preset.instrument.background(torch.tensor(time_)).item()
        _ = image + image_util.add_poisson(image, time_) + image_util.add_background(image, background)
    return len(rows)


def lenstronomy_images(rows: list[dict[str, Any]]) -> int:
    import lenstronomy.Util.image_util as image_util
    import reference

    preset = Simulator("model-1").preset
    for row in rows:
        image, time_ = reference.render(preset, row), row["exposure_time"]
        noisy = image + image_util.add_poisson(image, time_) + image_util.add_background(image, 0.01)
        np.random.poisson((time_ * noisy).clip(min=0))  # noqa: NPY002 (what DeepLense does)
    return len(rows)


def deeplense_images(rows: list[dict[str, Any]]) -> int:
    """As DeepLense's simulator goes about it: the radii of each image anew from masses, through astropy's distances."""
    from astropy import constants, units
    from astropy.cosmology import FlatLambdaCDM

    def radii(masses: Any) -> Any:
        cosmology = FlatLambdaCDM(H0=70, Om0=0.3, Ob0=0.05)
        lens = cosmology.luminosity_distance(0.5).to(units.m)
        source = cosmology.luminosity_distance(1.0).to(units.m)
        mass = masses * constants.M_sun
        return (np.sqrt(4 * constants.G * mass / constants.c**2 * (source - lens) / (lens * source)) * 206265).value

    for row in rows:
        row = row | {"theta_E": radii(1e12)}
        if row["label"] == "cdm":
            row["subhalo_theta_E"] = radii(np.array(row["subhalo_mass"])).tolist()
        elif row["label"] == "axion":
            row["subhalo_theta_E"] = radii(np.full(100, 3e8)).tolist()
        lenstronomy_images([row])
    return len(rows)


def process_rate(
    images: Callable[[list[Any]], int], rows: list[dict[str, Any]], pool: ProcessPoolExecutor | None
) -> float:
    started = time.perf_counter()
    if pool is None:
        images(rows)
    else:
        list(pool.map(images, [rows[0::2], rows[1::2]]))
    return len(rows) / (time.perf_counter() - started)


def positions(count: int, images: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return rng.uniform(-2, 2, (images, count)), rng.uniform(-2, 2, (images, count)), np.full((images, count), 0.02)


def caustics_function(count: int, images: int) -> Callable[[], int]:
    from caustics.lenses.func import (
        reduced_deflection_angle_external_shear,
        reduced_deflection_angle_point,
        reduced_deflection_angle_sie,
    )
    from caustics.light.func import brightness_sersic

    axis = (torch.arange(PIXELS) - (PIXELS - 1) / 2) * SCALE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    number = torch.tensor
    x0, y0, theta = (torch.tensor(p, dtype=torch.float32) for p in positions(count, images))

    def one(px: Any, py: Any, pt: Any) -> Any:
        ax, ay = reduced_deflection_angle_sie(
            number(0.0), number(0.0), number(0.818), number(0.0), number(1.28), x, y, 1e-6
        )
        bx, by = reduced_deflection_angle_external_shear(number(0.0), number(0.0), number(0.05), number(0.0), x, y)
        cx, cy = torch.vmap(lambda a, b, c: reduced_deflection_angle_point(a, b, c, x, y))(px, py, pt)
        ax, ay = ax + bx + cx.sum(0), ay + by + cy.sum(0)
        sersic = number(0.1), number(0.0), number(0.75), number(1.1), number(1.0), number(0.25), number(20.0)
        return brightness_sersic(*sersic, x - ax, y - ay, number(1.67), 1e-6)

    batched = torch.vmap(one, chunk_size=4)
    return lambda: len(batched(x0, y0, theta))


def jaxtronomy_function(count: int, images: int) -> Callable[[], int]:
    import jax
    import jax.numpy as jnp
    from jaxtronomy.LensModel.Profiles.shear import Shear
    from jaxtronomy.LensModel.Profiles.sie import SIE
    from jaxtronomy.LensModel.Profiles.sis import SIS
    from jaxtronomy.LightModel.Profiles.sersic_ellipse import SersicElliptic

    axis = (jnp.arange(PIXELS) - (PIXELS - 1) / 2) * SCALE
    x, y = (c.ravel() for c in jnp.meshgrid(axis, axis))
    sie, shear, sis, light = SIE(), Shear(), SIS(), SersicElliptic()
    x0, y0, theta = (jnp.asarray(p, dtype=jnp.float32) for p in positions(max(count, 1), images))

    def one(px: Any, py: Any, pt: Any) -> Any:
        ax, ay = sie.derivatives(x, y, 1.28, 0.1, 0.0)
        bx, by = shear.derivatives(x, y, 0.05, 0.0)
        ax, ay = ax + bx, ay + by
        if count:
            cx, cy = jax.vmap(lambda a, b, c: sis.derivatives(x, y, c, a, b))(px, py, pt)
            ax, ay = ax + cx.sum(0), ay + cy.sum(0)
        return light.function(x - ax, y - ay, 20.0, 0.25, 1.0, -0.1, 0.1, 0.1 + px[0] * 0, 0.0)

    batched = jax.jit(jax.vmap(one))
    batched(x0, y0, theta).block_until_ready()
    return lambda: len(batched(x0, y0, theta).block_until_ready())


def mixed_rate(functions: list[Callable[[], int]]) -> float:
    """Images a second of an equal mix, from the time of each class."""
    seconds = []
    for function in functions:
        started = time.perf_counter()
        seconds.append((function(), time.perf_counter() - started))
    return len(functions) / sum(s / n for n, s in seconds)


def without_lines(name: str) -> Preset:
    """A preset without the classes that lenstronomy has no deflector for."""
    content = resolve_preset(name)
    return load_preset(content | {"classes": {k: v for k, v in content["classes"].items() if "vortex" not in v}})


def same_scenes(name: str, options: argparse.Namespace) -> None:
    """Compare a preset with lenstronomy."""
    whole, simulator = Simulator(name, seed=1, compile=True), Simulator(without_lines(name), seed=1, compile=True)
    for each in (whole, simulator):
        darklens_rate(each, 256)
    rows = to_frame(draw_block(simulator.preset, 1, 0)).to_dicts()[: options.rows]
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    list(pool.map(scenes_by_lenstronomy, [(name, 2, rows[:1])] * 2))

    def lenstronomy(supersampling: int) -> float:
        started = time.perf_counter()
        done = sum(pool.map(scenes_by_lenstronomy, [(name, supersampling, rows[i::2]) for i in (0, 1)]))
        return done / (time.perf_counter() - started)

    own = simulator.preset.supersampling
    compare(
        {
            "darklens": lambda: darklens_rate(simulator, 1024),
            "darklens, all classes": lambda: darklens_rate(whole, 1024),
            f"lenstronomy, {own} × {own} rays in a pixel": lambda: lenstronomy(own),
            f"lenstronomy, {UNIFORM} × {UNIFORM} rays in a pixel": lambda: lenstronomy(UNIFORM),
        },
        f"{name}, {', '.join(simulator.preset.labels)}, {simulator.preset.pixels}×{simulator.preset.pixels}",
        options,
    )
    pool.shutdown()


def compare(contenders: dict[str, Callable[[], float]], title: str, options: argparse.Namespace) -> None:
    """Let contenders take turns, of which the first is darklens, and print their rates."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds):
        for name, measure in contenders.items():
            rates[name].append(measure())
    ours = statistics.median(rates["darklens"])
    print(f"{title}; {machine()}, {torch.get_num_threads()} threads")
    print(f"{'contender':46} {'images/s':>9} {'min':>7} {'max':>7} {'darklens is':>12}")
    for name, values in rates.items():
        median = statistics.median(values)
        print(f"{name:46} {median:9.1f} {min(values):7.1f} {max(values):7.1f} {ours / median:10.1f} ×")
    if options.out:
        options.out.write_text(json.dumps({"machine": machine(), "rates": rates}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="model-1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16, help="scenes that lenstronomy renders, of another preset")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    if options.preset != "model-1":
        same_scenes(options.preset, options)
        return
    simulator = Simulator("model-1", seed=1, compile=True)
    darklens_rate(simulator, 256)
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = to_frame(draw_block(simulator.preset, 1, 0)).to_dicts()[:60]
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    list(pool.map(lenstronomy_images, [rows[:2], rows[:2]]))
    contenders: dict[str, Callable[[], float]] = {
        "darklens": lambda: darklens_rate(simulator, 2048),
        "lenstronomy as DeepLense, one process": lambda: process_rate(deeplense_images, rows, None),
        "lenstronomy as DeepLense, two processes": lambda: process_rate(deeplense_images, rows * 2, pool),
        "lenstronomy, parameters given, one process": lambda: process_rate(lenstronomy_images, rows, None),
        "lenstronomy, parameters given, two processes": lambda: process_rate(lenstronomy_images, rows * 2, pool),
    }
    caustics = [caustics_function(count, 24) for count in (25, 100)]
    # Without substructure caustics is given the benefit of the doubt: no time at all.
    contenders["caustics, vmap, no PSF or noise"] = lambda: mixed_rate(caustics) * 3 / 2
    try:
        jax_functions = [jaxtronomy_function(count, 63) for count in (0, 25, 100)]
        contenders["jaxtronomy, jit and vmap, no PSF or noise"] = lambda: mixed_rate(jax_functions)
    except ImportError:
        print("jaxtronomy is not installed: pip install 'darklens[bench]'")
    compare(contenders, f"Model I, equal mix of classes, {PIXELS}×{PIXELS}", options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of darklens alone: {peak_before:.2f} GB (of this process with all contenders: {peak:.2f} GB)")
    if torch.cuda.is_available():
        gpu = Simulator("model-1", seed=1, device="cuda", compile=True)
        darklens_rate(gpu, 4096)
        print(f"darklens on {torch.cuda.get_device_name()}: {darklens_rate(gpu, 65536):,.0f} images/s")
    pool.shutdown()


if __name__ == "__main__":
    main()
