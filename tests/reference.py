"""The same images by lenstronomy, from a row of the catalogue: the oracle of the physics."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from lenstronomy.Data.imaging_data import ImageData
from lenstronomy.Data.psf import PSF
from lenstronomy.ImSim.image_model import ImageModel
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Profiles.base_profile import LensProfileBase
from lenstronomy.LensModel.Profiles.point_mass import PointMass
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.util import make_grid_with_coordtransform

from darklens.simulation import Preset


class LineMass(LensProfileBase):
    """A uniform line as an integral over lenstronomy's point masses, by Gauss-Legendre quadrature.

    The integrand peaks where the line passes the pixel; the nodes are crowded there by t = t0 + d sinh(u).
    """

    param_names: ClassVar = ["theta_E", "half_length", "phi", "center_x", "center_y"]
    lower_limit_default: ClassVar = dict.fromkeys(param_names, 0.0)
    upper_limit_default: ClassVar = lower_limit_default

    def derivatives(self, x, y, theta_E, half_length, phi, center_x=0, center_y=0):
        cos, sin = np.cos(phi), np.sin(phi)
        dx, dy = np.atleast_1d(x) - center_x, np.atleast_1d(y) - center_y
        t0, d = dx * cos + dy * sin, np.abs(dy * cos - dx * sin) + 1e-12
        low, high = np.arcsinh((-half_length - t0) / d), np.arcsinh((half_length - t0) / d)
        nodes, weights = np.polynomial.legendre.leggauss(200)
        total = np.zeros((2, dx.size))
        for node, weight in zip(nodes, weights, strict=True):
            u = (low + high) / 2 + (high - low) / 2 * node
            t = t0 + d * np.sinh(u)
            share = weight * (high - low) / 2 * d * np.cosh(u) / (2 * half_length)
            total += share * np.stack(PointMass().derivatives(dx, dy, theta_E, t * cos, t * sin))
        return total[0], total[1]


def lens_model(preset: Preset, row: dict[str, Any]) -> tuple[LensModel, list[dict[str, float]]]:
    """lenstronomy's lens model and keyword arguments of one image."""
    profile = preset.deflector.profile.upper()
    main = {k: row[k] for k in ("theta_E", "e1", "e2")} | {"center_x": row["lens_x"], "center_y": row["lens_y"]}
    if profile == "EPL":
        main["gamma"] = row["gamma"]
    names, kwargs = [profile, "SHEAR"], [main, {k: row[k] for k in ("gamma1", "gamma2")}]
    matter = preset.classes[row["label"]]
    if matter.vortex is not None and matter.vortex.profile == "line":
        line = {k: row[f"vortex_{k}"] for k in ("theta_E", "half_length", "phi")}
        names.append("LINE")
        kwargs.append(line | {"center_x": row["vortex_x"], "center_y": row["vortex_y"]})
    if row.get("subhalo_x") is not None:
        kind = "TNFW" if row.get("subhalo_Rs") is not None else "POINT_MASS"
        if "sis" in (row.get("subhalo_profile"), matter.subhalos and matter.subhalos.profile):
            kind = "SIS"
        parameters = ("Rs", "alpha_Rs", "r_trunc") if kind == "TNFW" else ("theta_E",)
        for i, (x, y) in enumerate(zip(row["subhalo_x"], row["subhalo_y"], strict=True)):
            names.append(kind)
            kwargs.append({p: row[f"subhalo_{p}"][i] for p in parameters} | {"center_x": x, "center_y": y})
    model = LensModel(["SIS" if name == "LINE" else name for name in names])
    for i, name in enumerate(names):
        if name == "LINE":
            model.lens_model.func_list[i] = LineMass()
    return model, kwargs


def render(preset: Preset, row: dict[str, Any]) -> np.ndarray:
    """Noise-free flux of one image, (pixels, pixels)."""
    instrument, n = preset.instrument, preset.pixels
    _, _, ra, dec, _, _, matrix, _ = make_grid_with_coordtransform(
        num_pix=n, delta_pix=instrument.pixel_scale, inverse=False
    )
    data = ImageData(
        image_data=np.zeros((n, n)), ra_at_xy_0=ra, dec_at_xy_0=dec, transform_pix2angle=matrix,
        background_rms=1, exposure_time=1,
    )  # fmt: skip
    if instrument.psf_file is not None:
        psf = PSF("PIXEL", kernel_point_source=np.load(instrument.psf_file))
    else:
        scale, cut = instrument.pixel_scale, instrument.psf_truncation
        psf = PSF("GAUSSIAN", fwhm=instrument.psf_fwhm, pixel_size=scale, truncation=cut)
    model, kwargs = lens_model(preset, row)
    light, source = source_model(preset, row)
    numerics = {"supersampling_factor": preset.supersampling, "supersampling_convolution": preset.supersampling > 1}
    if instrument.psf_file is not None:
        numerics["supersampling_convolution"] = False
    own = [lens_light(preset, row)] if preset.lens_light is not None else []
    image = ImageModel(
        data,
        psf,
        lens_model_class=model,
        source_model_class=light,
        lens_light_model_class=LightModel(["SERSIC_ELLIPSE"] * len(own)),
        kwargs_numerics=numerics,
    )
    return image.image(kwargs, [source], own)


def lens_light(preset: Preset, row: dict[str, Any]) -> dict[str, Any]:
    """lenstronomy's keyword arguments of the deflector's own light."""
    shape = {"center_x": row["lens_x"], "center_y": row["lens_y"]}
    shape |= {name: row[f"lens_light_{name}"] for name in ("R_sersic", "n_sersic", "e1", "e2")}
    flux = 10 ** ((preset.instrument.zero_point - row["lens_light_magnitude"]) / 2.5)
    return shape | {"amp": flux / LightModel(["SERSIC_ELLIPSE"]).total_flux([shape | {"amp": 1.0}])[0]}


def source_model(preset: Preset, row: dict[str, Any]) -> tuple[LightModel, dict[str, Any]]:
    """lenstronomy's source and its keyword arguments."""
    centre = {"center_x": row["source_x"], "center_y": row["source_y"]}
    if preset.source.profile == "image":
        light = LightModel(["INTERPOL"])
        stack = np.load(preset.source.images)
        source = centre | {"phi_G": row["source_phi"], "scale": row["source_pixel_scale"]}
        source["image"] = stack[int(row["source_image"] * len(stack))]
    else:
        light = LightModel(["SERSIC_ELLIPSE"])
        source = centre | {k: row[f"source_{k}"] for k in ("R_sersic", "n_sersic", "e1", "e2")}
    if row.get("source_amp") is not None:
        return light, source | {"amp": row["source_amp"]}
    flux = 10 ** ((preset.instrument.zero_point - row["source_magnitude"]) / 2.5)
    return light, source | {"amp": flux / light.total_flux([source | {"amp": 1.0}], norm=False)[0]}
