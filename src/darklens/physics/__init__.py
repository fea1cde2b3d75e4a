"""Batched, differentiable gravitational lensing in PyTorch.

Pure functions of tensors: no files, no classes, no global state, and no random numbers without a generator or a seed.
Angles are in arcseconds, position angles in radians counter-clockwise from the x axis, and ellipticities follow
lenstronomy: ``e1 = (1 - q) / (1 + q) * cos(2 * phi)``, ``e2 = (1 - q) / (1 + q) * sin(2 * phi)``.
"""

from darklens.physics.coordinates import axis_ratio_and_angle, bin_pixels, ellipticity, pixel_coordinates
from darklens.physics.cosmology import (
    Cosmology,
    critical_surface_density,
    deflection_rescaling,
    einstein_radius,
    einstein_radius_luminosity_distance,
    kpc_per_arcsec,
    nfw_concentration,
    nfw_scale_radius,
)
from darklens.physics.deflectors import (
    epl_deflection,
    line_mass_deflection,
    point_mass_deflection,
    shear_deflection,
    sie_deflection,
    sis_deflection,
    vortex_point_masses,
)
from darklens.physics.lensing import LensingMaps, lensing_maps, lensing_potential
from darklens.physics.light import (
    exponential_light,
    pixelated_light,
    ring_light,
    ring_total_flux,
    sersic_light,
    sersic_total_flux,
    spiral_arms,
)
from darklens.physics.nfw import (
    nfw_mass_before_truncation,
    truncated_nfw_deflection,
    truncated_nfw_mass,
    truncated_nfw_scale_deflection,
    truncated_nfw_share,
)
from darklens.physics.noise import (
    background_rms,
    band_limit_noise,
    correlate_noise,
    correlated_variance,
    counts_per_second,
    gaussian_noise,
    poisson,
)
from darklens.physics.psf import (
    convolve,
    convolve_separable,
    gaussian_psf_taps,
    pixel_response,
    pixelated_psf,
    psf_kernel,
)

__all__ = [
    "Cosmology",
    "LensingMaps",
    "axis_ratio_and_angle",
    "background_rms",
    "bin_pixels",
    "convolve",
    "convolve_separable",
    "band_limit_noise",
    "correlate_noise",
    "correlated_variance",
    "counts_per_second",
    "critical_surface_density",
    "deflection_rescaling",
    "einstein_radius",
    "einstein_radius_luminosity_distance",
    "ellipticity",
    "epl_deflection",
    "exponential_light",
    "gaussian_noise",
    "gaussian_psf_taps",
    "kpc_per_arcsec",
    "lensing_maps",
    "lensing_potential",
    "line_mass_deflection",
    "nfw_concentration",
    "nfw_mass_before_truncation",
    "nfw_scale_radius",
    "pixel_coordinates",
    "pixel_response",
    "pixelated_light",
    "pixelated_psf",
    "point_mass_deflection",
    "poisson",
    "psf_kernel",
    "ring_light",
    "ring_total_flux",
    "sersic_light",
    "sersic_total_flux",
    "shear_deflection",
    "sie_deflection",
    "sis_deflection",
    "spiral_arms",
    "truncated_nfw_deflection",
    "truncated_nfw_mass",
    "truncated_nfw_scale_deflection",
    "truncated_nfw_share",
    "vortex_point_masses",
]
