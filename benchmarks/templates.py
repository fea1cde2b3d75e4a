"""Make the spectra of galaxies and the filter curves that speclite lacks, from those that GalSim ships.

    pip install galsim    # or darklens[bench]
    python benchmarks/templates.py

Writes ``src/darklens/simulation/scenes/spectra.npz``: arrays (2, n) of wavelength (Å) and flux density per wavelength (any
unit), or of wavelength and response, in float32. Spectra: Coleman, Wu & Weedman (1980, ApJS 43, 393), extended by
Bolzonella, Miralles & Pelló (2000, A&A 363, 476). Filters: ACS F814W, WFC3 F160W.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

OUT = Path(__file__).parents[1] / "src/darklens/simulation/scenes/spectra.npz"
SPECTRA = {"E": "CWW_E_ext", "Sbc": "CWW_Sbc_ext", "Scd": "CWW_Scd_ext", "Im": "CWW_Im_ext"}
FILTERS = {"acs-F814W": "ACS_wfc_F814W", "wfc3-F160W": "WFC3_ir_F160W"}


def main() -> None:
    import galsim

    share = Path(galsim.meta_data.share_dir)
    found = {name: np.loadtxt(share / "SEDs" / f"{file}.sed").T for name, file in SPECTRA.items()}
    for name, file in FILTERS.items():
        nanometres, response = np.loadtxt(share / "bandpasses" / f"{file}.dat").T[:2]
        found[name] = np.stack([10 * nanometres, response])
    np.savez_compressed(OUT, allow_pickle=False, **{name: array.astype(np.float32) for name, array in found.items()})
    for name, array in found.items():
        print(f"{name}: {array.shape[1]} points from {array[0, 0]:.0f} to {array[0, -1]:.0f} Å")


if __name__ == "__main__":
    main()
