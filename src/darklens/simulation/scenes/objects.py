"""What scenes are put together from, and its columns in the catalogue.

A scene has a main galaxy (``galaxy_…``), which may deflect the light (``theta_E``, ``e1``, …, and ``perturber_…``, which
are singular isothermal spheres) of a source (``source_…``). All other light is in lists: ``light_…`` of extended
components, of which those with ``light_lensed`` 1 are in the source plane, and ``point_…`` of points. Magnitudes have a
column for each band: ``galaxy_magnitude_g``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from darklens.simulation.priors import Floats
from darklens.simulation.scenes.sky import Galaxies

Truths = dict[str, Any]

SHAPE = ("x", "y", "R_sersic", "n_sersic", "e1", "e2")
"""Columns of a component's place and shape: arcsec, arcsec, arcsec, none, none, none."""

ARMS = ("arm_amplitude", "arm_number", "arm_pitch", "arm_phase")
"""Columns of `darklens.physics.spiral_arms`; an amplitude of 0 is none."""

LIGHT = (*SHAPE, *ARMS, "ring_width", "lensed")
"""Columns of an extended component. With a ``ring_width`` (arcsec) above 0 it is a ring of radius ``R_sersic``."""

MASS = ("theta_E", "e1", "e2", "lens_x", "lens_y", "gamma1", "gamma2")
"""Columns of the main deflector, a singular isothermal ellipsoid with external shear."""

PERTURBER = ("x", "y", "theta_E")
"""Columns of further deflectors, singular isothermal spheres: arcsec."""


class Objects:
    """The objects of some images, put together by a function of `darklens.simulation.scenes.kinds`.

    Parameters
    ----------
    images
        Number of images N.
    bands
        Names of the bands.
    """

    def __init__(self, images: int, bands: list[str]):
        self.images, self.bands = images, bands
        self.values: Truths = {}
        self._light: list[tuple[np.ndarray, dict[str, Floats]]] = []
        self._points: list[tuple[np.ndarray, dict[str, Floats]]] = []
        self._perturbers: list[tuple[np.ndarray, dict[str, Floats]]] = []

    def set(self, **columns: Floats) -> None:
        """Set columns of one value for each image, (N,)."""
        self.values |= columns

    def set_galaxy(self, name: str, galaxies: Galaxies, x: Floats, y: Floats) -> None:
        """Set the main galaxy or the source of each image.

        Parameters
        ----------
        name
            ``galaxy`` or ``source``.
        galaxies
            One for each image.
        x, y
            Their places, arcsec, (N,).
        """
        places = (x, y, galaxies.R_sersic, galaxies.n_sersic, galaxies.e1, galaxies.e2)
        columns = dict(zip(SHAPE, places, strict=True)) | self._magnitudes(galaxies.magnitudes)
        columns |= {"z": galaxies.z, "spectrum": galaxies.spectrum}
        self.values |= {f"{name}_{column}": values for column, values in columns.items()}

    def add(
        self,
        image: np.ndarray,
        galaxies: Galaxies,
        x: Floats,
        y: Floats,
        *,
        lensed: bool = False,
        others: Mapping[str, Floats] = MappingProxyType({}),
    ) -> None:
        """Add extended components.

        Parameters
        ----------
        image
            Number of the image of each, (M,).
        galaxies
            Their shapes and magnitudes.
        x, y
            Their places, arcsec, (M,); of lensed ones, in the source plane.
        lensed
            Whether they are in the source plane.
        others
            Columns of `ARMS`, or ``ring_width``, (M,).
        """
        places = (x, y, galaxies.R_sersic, galaxies.n_sersic, galaxies.e1, galaxies.e2)
        rest = {name: others.get(name, np.zeros(len(image))) for name in (*ARMS, "ring_width")}
        columns = dict(zip(SHAPE, places, strict=True)) | rest | {"lensed": np.full(len(image), float(lensed))}
        self._light.append((image, columns | self._magnitudes(galaxies.magnitudes)))

    def add_points(self, image: np.ndarray, magnitudes: Floats, x: Floats, y: Floats) -> None:
        """Add points: stars or quasars.

        Parameters
        ----------
        image
            Number of the image of each, (M,).
        magnitudes
            In the bands, (M, bands).
        x, y
            Their places, arcsec, (M,).
        """
        self._points.append((image, {"x": x, "y": y} | self._magnitudes(magnitudes)))

    def add_perturbers(self, image: np.ndarray, x: Floats, y: Floats, theta_E: Floats) -> None:
        """Add further deflectors, singular isothermal spheres.

        Parameters
        ----------
        image
            Number of the image of each, (M,).
        x, y
            Their places, arcsec, (M,).
        theta_E
            Einstein radii, arcsec, (M,).
        """
        self._perturbers.append((image, {"x": x, "y": y, "theta_E": theta_E}))

    def columns(self) -> Truths:
        """Return the columns of the catalogue: arrays (N,), and lists of N arrays."""
        found = dict(self.values)
        for prefix, parts in (("light", self._light), ("point", self._points), ("perturber", self._perturbers)):
            if parts:
                found |= {f"{prefix}_{name}": values for name, values in self._ragged(parts).items()}
        return found

    def _magnitudes(self, magnitudes: Floats) -> dict[str, Floats]:
        return {f"magnitude_{band}": magnitudes[:, i] for i, band in enumerate(self.bands)}

    def _ragged(self, parts: list[tuple[np.ndarray, dict[str, Floats]]]) -> dict[str, list[Floats]]:
        image = np.concatenate([numbers for numbers, _ in parts])
        order = np.argsort(image, kind="stable")
        splits = np.cumsum(np.bincount(image, minlength=self.images))[:-1]
        return {
            name: np.split(np.concatenate([columns[name] for _, columns in parts])[order], splits)
            for name in parts[0][1]
        }
