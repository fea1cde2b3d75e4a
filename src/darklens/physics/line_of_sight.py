"""Halos in front of and behind a lens as effective halos in the lens plane.

The multi-plane lens equation is expanded to first order in the deflection by the halo. Rays behind the lens are taken to go
straight to the source, as they do on the Einstein ring, so that they fill a cone that closes at the source. Source: Şengül,
Tsang, Diaz Rivero, Dvorkin, Zhu & Seljak (2020, Phys. Rev. D 102, 063502).

What is left out: the distortion of the whole image by halos in front of the lens (positions in the image are taken to be
those in the lens plane), products of deflections of two halos, and how far rays away from the ring are from the cone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from darklens.physics.cosmology import Cosmology, Redshift, comoving_distance

Floats = NDArray[np.float64]


class EffectiveHalo(NamedTuple):
    """Parameters of truncated NFW halos in the lens plane, arcsec, as `truncated_nfw_deflection` takes them."""

    Rs: Floats
    r_trunc: Floats
    alpha_Rs: Floats


def double_cone_width(z: Floats, z_lens: Redshift, z_source: Redshift, cosmology: Cosmology = Cosmology()) -> Floats:
    """Return ``1 - β``: by how much a halo's lensing is weaker than that of the same convergence in the lens plane.

    β is D_hl D_s / (D_l D_hs) for halos in front of the lens, and D_lh D_s / (D_h D_ls) for those behind it. Behind the
    lens, ``1 - β`` is also the angle that rays through an image cover, in units of that in the lens plane.

    Parameters
    ----------
    z
        Redshifts of the halos, from zero to that of the source.
    z_lens, z_source
        Redshifts of lens and source; broadcast to ``z``.
    cosmology
        Flat, so that angular-diameter distances follow from comoving ones.

    Returns
    -------
    1 at the lens, falling to 0 towards observer and source; of the shape of ``z``.

    Source: the first-order expansion above, after Şengül et al. (2020).
    """
    halo, lens, source = (comoving_distance(np.asarray(one), cosmology) for one in (z, z_lens, z_source))
    return double_cone_width_of_distances(halo, lens, source)


def double_cone_width_of_distances(halo: Floats, lens: Floats, source: Floats) -> Floats:
    """Return `double_cone_width` from comoving distances.

    Parameters
    ----------
    halo, lens, source
        Comoving distances in one unit, of any broadcastable shapes; that of the source is the largest.

    Returns
    -------
    ``1 - β``, of the broadcast shape.
    """
    near, far = np.minimum(halo, lens), np.maximum(halo, lens)
    width: Floats = near * (source - far) / (far * (source - near))
    return width


def effective_halo(
    Rs: Floats, r_trunc: Floats, alpha_Rs: Floats, *, width: Floats, behind: NDArray[np.bool_]
) -> EffectiveHalo:
    """Return the halos in the lens plane that have the effect of halos in front of and behind it.

    One in front of the lens is seen where it is, and its deflection is weaker by ``1 - β``. One behind the lens is seen
    through it: angles there are ``1 - β`` of those in the lens plane, while the deflection is its own.

    Parameters
    ----------
    Rs, r_trunc
        Scale and truncation radius of the halos at their own redshifts, arcsec.
    alpha_Rs
        Their deflection without truncation at ``Rs``, reduced for the source, arcsec.
    width
        `double_cone_width` of each.
    behind
        Whether each is behind the lens.

    Returns
    -------
    Parameters of the same shape.

    Source: the first-order expansion above, after Şengül et al. (2020).
    """
    stretch = np.where(behind, width, 1.0)
    return EffectiveHalo(Rs / stretch, r_trunc / stretch, np.where(behind, alpha_Rs, alpha_Rs * width))
