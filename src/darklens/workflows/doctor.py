"""What an issue report needs to know of a machine, and combinations that are known to be bad."""

from __future__ import annotations

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "darklens", "torch", "torchvision", "lightning", "timm", "torchmetrics", "caustics", "numpy", "polars", "pyarrow",
    "astropy", "fitsio", "jsonargparse", "matplotlib", "safetensors", "wandb", "lenstronomy",
)  # fmt: skip

MALICIOUS = {"2.6.2", "2.6.3"}
"""Releases of lightning that stole credentials (GHSA-w37p-236h-pfx3)."""


def diagnose() -> tuple[dict[str, str], list[str]]:
    """Facts about versions, devices, threads and disk; and problems, each with its cure."""
    found = {name: _version(name) for name in PACKAGES}
    facts = {"python": f"{platform.python_version()} on {platform.platform()}"}
    facts |= {name: value or "not installed" for name, value in found.items()}
    problems = known_bad(found)
    if found["torch"]:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["devices"] = ", ".join(gpus) or "CPU only"
        facts["threads"] = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
        facts["bfloat16"] = "computed in hardware" if _bf16() else "emulated, so not used by default"
        facts["kernels"] = "compiled" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler: eager"
    disk = shutil.disk_usage(Path.cwd())
    facts["disk here"] = f"{disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f}"
    if disk.free < 2**30:
        problems.append("less than 1 GiB of disk is free here: choose another --out")
    return facts, problems


def known_bad(versions: dict[str, str | None]) -> list[str]:
    """Combinations that do not work, or must not be used."""
    problems = []
    if versions.get("lightning") in MALICIOUS:
        problems.append(
            "this lightning is a malicious release that steals credentials: remove it, and change passwords"
        )
    torch, vision = versions.get("torch"), versions.get("torchvision")
    if torch and vision and not _pair(torch, vision):
        problems.append(f"torch {torch} and torchvision {vision} are not a pair: install them together")
    numpy = versions.get("numpy")
    if numpy and numpy.startswith("1."):
        problems.append(f"numpy {numpy}: darklens needs 2")
    return problems


def _pair(torch: str, vision: str) -> bool:
    """torch 2.N goes with torchvision 0.(N + 15), or, from 2.14 on, 0.(N + 14)."""
    minor, vision_minor = int(torch.split(".")[1]), int(vision.split(".")[1])
    return vision_minor - minor in (14, 15)


def _bf16() -> bool:
    from darklens.training.fit import resolve_precision

    return resolve_precision("auto") == "bf16-mixed"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
