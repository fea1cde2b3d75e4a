"""A real field by Hyper Suprime-Cam and by Hubble: what a model makes of the one, beside the other.

The HSC image is made finer by a model that was trained on simulated pairs of HSC-like pixels and seeing. Its output is
degraded again, by the response that the model learned from its pairs, and compared with the image: χ² per pixel says
whether it agrees with what was seen. Hubble's image, resampled to the output's pixels, is drawn beside it, with the
correlation of each method with it. One field proves nothing; it shows what to expect of simulations that are not the sky.

    python benchmarks/superresolution_real.py --data ../shared/data/hsc_hst_pair --model runs/hsc-x4 --out real.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits

from darklens.data.resampling import about_centre, resample
from darklens.data.sizes import crop_or_pad
from darklens.errors import DarklensError
from darklens.evaluation.superresolution import chi_square
from darklens.inference.model import load_model
from darklens.physics.degrading import Response
from darklens.physics.smoothfit import sky_noise
from darklens.plots.style import style

HSC, HST = 0.168, 0.03
"""Pixel scales, arcsec."""


def correlation(a: np.ndarray, b: np.ndarray, shift: int) -> float:
    """Return the highest correlation of two images (H, W) moved against each other by up to so many pixels."""
    side = a.shape[0]
    inner = a[shift : side - shift, shift : side - shift].ravel()
    steps = range(2 * shift + 1)
    width = side - 2 * shift
    return max(float(np.corrcoef(inner, b[y : y + width, x : x + width].ravel())[0, 1]) for y in steps for x in steps)


def main() -> None:
    """Make the field finer, print figures, and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder of the pair")
    parser.add_argument("--model", type=Path, required=True, help="a run of super-resolution for pixels of HSC's size")
    parser.add_argument("--band", type=int, default=2, help="of HSC's three, counted from 0")
    parser.add_argument("--out", type=Path, default=Path("superresolution-real.png"))
    given = parser.parse_args()
    model = load_model(given.model)
    side, factor = model.config.pixels, model.task.finer_by
    if factor < 2 or abs((model.config.pixel_scale or 0) / HSC - 1) > 0.02:
        raise DarklensError(f"{given.model}: is no model that makes pixels of {HSC}″ finer")
    with fits.open(given.data / "hsc.fits") as file:
        seen = np.asarray(file[0].data[given.band], np.float32)
    with fits.open(given.data / "hst.fits") as file:
        sharp = np.asarray(file[0].data, np.float32)
    image = torch.from_numpy(crop_or_pad(seen[None, None], side))
    peak = torch.quantile(image.flatten(), 0.995)
    scale = float(model.config.data["typical_peak"]) / float(peak)
    scaled = image * scale
    task = model.task.with_images(scaled.numpy())
    methods = {name: found[0, 0] for name, found in task.baselines(np.zeros((1, 1, 1, 1)))}
    methods["model"] = model.predict(scaled).array[0, 0]
    step = HSC / factor / HST
    axes = [about_centre(n, step) for n in sharp.shape]
    truth = crop_or_pad(resample(sharp[None, None], *axes), side * factor)[0, 0]
    # The noise of this image is its own; how pixels gather light is the model's.
    response: Response = task.learned_response()  # type: ignore[attr-defined]
    sky = sky_noise(scaled[:, 0]).double().flatten().square()
    own = Response(response.weights, sky, torch.zeros(1, dtype=torch.float64))
    for name, found in methods.items():
        chi = chi_square(torch.from_numpy(np.asarray(found))[None, None], scaled, own, factor)
        print(
            f"{name:8} χ² per pixel {float(chi):7.2f}  correlation with Hubble's {correlation(found, truth, factor):.3f}"
        )
    pictures = {"HSC": scaled[0, 0].numpy() / factor**2, **methods}
    with style() as plt:
        figure, drawn = plt.subplots(1, len(pictures) + 1, figsize=(2.2 * (len(pictures) + 1), 2.5))
        for axis, (name, picture) in zip(drawn, [*pictures.items(), ("HST, resampled", truth)], strict=True):
            soft = max(float(np.quantile(np.abs(picture), 0.5)), 1e-12)
            axis.imshow(np.arcsinh(picture / soft), origin="lower", cmap="magma", interpolation="nearest")
            axis.set_title(name)
            axis.set_axis_off()
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.88, wspace=0.04)
        figure.savefig(given.out, dpi=130)
    print(f"→ {given.out}")


if __name__ == "__main__":
    main()
