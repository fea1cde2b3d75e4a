"""What an issue report needs to know of a machine, what is missing, and combinations that are known to be bad."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

OPTIONAL = ("wandb", "lenstronomy")
"""Packages of extras that an issue report should name."""

MALICIOUS = {"2.6.2", "2.6.3"}
"""Releases of lightning that stole credentials (GHSA-w37p-236h-pfx3)."""


def diagnose() -> tuple[dict[str, str], list[str]]:
    """Return facts about versions, devices, threads and disk, and problems, each with its cure."""
    core = core_requirements()
    found = {name: _version(name) for name in ("darklens", *(r.name for r in core), *OPTIONAL)}
    missing = missing_core(core, found)
    problems = missing + known_bad(found)
    facts = {"python": f"{platform.python_version()} on {platform.platform()}"}
    facts |= {name: value or "not installed" for name, value in found.items()}
    if found["torch"]:
        import torch

        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["devices"] = ", ".join(gpus) or "CPU only"
        facts["threads"] = f"{torch.get_num_threads()} of {os.cpu_count()} cores"
        facts["kernels"] = "compiled" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler: eager"
    if not missing:
        facts["bfloat16"] = "computed in hardware" if _bf16() else "emulated, so not used by default"
    disk = shutil.disk_usage(Path.cwd())
    facts["disk here"] = f"{disk.free / 2**30:.1f} GiB free of {disk.total / 2**30:.1f}"
    if disk.free < 2**30:
        problems.append("less than 1 GiB of disk is free here: choose another --out")
    return facts, problems


def core_requirements() -> list[Requirement]:
    """Return what the installed darklens requires on this machine, without its extras."""
    every = [Requirement(line) for line in requires("darklens") or ()]
    return [r for r in every if r.marker is None or r.marker.evaluate({"extra": ""})]


def missing_core(requirements: Iterable[Requirement], versions: Mapping[str, str | None]) -> list[str]:
    """Return a line for each requirement that is not installed or has a wrong version, with the command that mends it."""
    problems = []
    for wanted in requirements:
        found = versions.get(wanted.name)
        extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
        need = f"{wanted.name}{extras}{wanted.specifier}"
        if found is None:
            problems.append(f"{wanted.name} is not installed, and darklens needs it: pip install '{need}'")
        elif not wanted.specifier.contains(found, prereleases=True):
            problems.append(f"{wanted.name} {found} is installed, but darklens needs another: pip install '{need}'")
    return problems


def known_bad(versions: Mapping[str, str | None]) -> list[str]:
    """Return a line for each combination of versions that does not work, or must not be used."""
    problems = []
    if versions.get("lightning") in MALICIOUS:
        problems.append(
            "this lightning is a malicious release that steals credentials: remove it, and change passwords"
        )
    torch, vision = versions.get("torch"), versions.get("torchvision")
    if torch and vision and not _pair(torch, vision):
        problems.append(f"torch {torch} and torchvision {vision} are not a pair: install them together")
    return problems


def _pair(torch: str, vision: str) -> bool:
    """torch 2.N goes with torchvision 0.(N + 15), or, from 2.14 on, 0.(N + 14)."""
    minor, vision_minor = int(torch.split(".")[1]), int(vision.split(".")[1])
    return vision_minor - minor in (14, 15)


def _bf16() -> bool:
    from darklens.tasks.precision import computes_in_bfloat16

    return computes_in_bfloat16()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
