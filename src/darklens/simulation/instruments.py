"""Telescopes: pixel scale, point-spread function and the numbers that noise is computed from."""

from __future__ import annotations

from dataclasses import dataclass

from darklens.errors import PresetError
from darklens.physics import background_rms
from darklens.physics.noise import Seconds
from darklens.simulation.priors import Constant, Prior


@dataclass(frozen=True)
class Instrument:
    """Describe one band of one telescope. All numbers are in electrons, so that no gain is needed.

    Attributes
    ----------
    pixel_scale
        arcsec.
    psf_fwhm, psf_truncation
        Gaussian PSF: full width at half maximum in arcsec, and where it ends in standard deviations.
    psf_file
        A ``.npy`` or FITS image of the PSF at the pixel scale, with odd sides; takes the place of the Gaussian.
    exposure_time
        Seconds of one exposure.
    exposures
        Number of exposures that are stacked.
    read_noise
        e- per read-out.
    sky_brightness
        AB mag/arcsec².
    zero_point
        AB magnitude of 1 e-/s.
    background_rms
        Standard deviation of the background (image units); given, it takes the place of read noise and sky.
    noise_correlation
        Full width at half maximum, in pixels, of a Gaussian that spreads the noise as drizzling does, its variance kept; 0
        for independent pixels.
    """

    name: str
    pixel_scale: float
    psf_fwhm: float = 0.0
    psf_truncation: float = 5.0
    psf_file: str | None = None
    exposure_time: Prior = Constant(1.0)
    exposures: int = 1
    read_noise: float = 0.0
    sky_brightness: float | None = None
    zero_point: float | None = None
    background_rms: float | None = None
    noise_correlation: float = 0.0

    def __post_init__(self) -> None:
        for name in ("pixel_scale", "psf_truncation"):
            self._require(getattr(self, name) > 0, name, "above zero")
        self._require(self.exposure_time.lowest > 0, "exposure_time", "above zero")
        self._require(self.exposures >= 1, "exposures", "at least 1")
        for name in ("psf_fwhm", "read_noise", "noise_correlation"):
            self._require(getattr(self, name) >= 0, name, "zero or more")
        self._require(self.psf_fwhm > 0 or self.psf_file is not None, "psf_fwhm", "above zero, or psf_file be given")
        if self.background_rms is None:
            for name in ("sky_brightness", "zero_point"):
                self._require(getattr(self, name) is not None, name, "given, unless background_rms is")

    def _require(self, holds: bool, name: str, what: str) -> None:
        if not holds:
            raise PresetError(f"instrument {self.name}: {name} must be {what}; got {getattr(self, name)!r}")

    def background(self, exposure_time: Seconds) -> Seconds:
        """Return the standard deviation of read-out and sky noise in one pixel (e-/s) for exposures of some seconds."""
        if self.background_rms is not None:
            return exposure_time * 0 + self.background_rms
        assert self.sky_brightness is not None
        assert self.zero_point is not None
        return background_rms(
            self.read_noise,
            exposure_time,
            self.exposures,
            self.sky_brightness,
            self.zero_point,
            self.pixel_scale,
        )
