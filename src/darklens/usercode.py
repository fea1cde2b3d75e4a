"""Code of the user's own, named as ``file.py:name``: a deflection, a population, a network.

It is run when the user names it on the command line or in Python. Where a file names it (a preset or recipe in YAML, a
model's ``config.json``, a run's ``run.json``, a dataset's ``dataset.json``), someone else may have written that file: the
code is then run only if the user says so, by ``--trust_code true`` or ``trust_code=True``. Reading data never runs code.

Either a deflection, for subhalos whose parameters a preset draws, such as cored isothermal spheres::

    def cored(x, y, x0, y0, theta_E, r_core):            # torch tensors, arcsec
        dx, dy = x - x0, y - y0
        scale = theta_E / ((dx**2 + dy**2 + r_core**2).sqrt() + r_core)
        return scale * dx, scale * dy

or a population, which draws deflectors itself, for one image at a time::

    def sidm(rng, lens):                                  # numpy Generator, dict of the image's main deflector
        n = rng.poisson(50)
        return {
            "profile": cored,
            "x": rng.uniform(-2.56, 2.56, n),
            "y": rng.uniform(-2.56, 2.56, n),
            "theta_E": 0.0004 * (1 - rng.uniform(0, 1 - 20**-1.35, n)) ** (-1 / 1.35),
            "r_core": np.exp(rng.uniform(np.log(0.05), np.log(0.3), n)),
        }

where ``profile`` is ``point_mass``, ``sis``, ``tnfw`` or a deflection function.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import Any

from darklens.errors import DarklensError, UntrustedCodeError, UserCodeError

log = logging.getLogger("darklens")


def is_reference(text: object) -> bool:
    """Return whether a value names a function or class in a file: ``file.py:name``."""
    if not isinstance(text, str):
        return False
    path, _, name = text.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def split_reference(reference: str) -> tuple[Path, str]:
    """Return the file and the name of ``file.py:name``."""
    text, _, name = reference.rpartition(":")
    return Path(text), name


def references(content: object) -> Iterator[str]:
    """Yield every ``file.py:name`` among the values of nested mappings and lists."""
    if is_reference(content):
        yield str(content)
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from references(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from references(value)


def with_references(content: Any, change: Callable[[str], str]) -> Any:
    """Return nested mappings and lists with every ``file.py:name`` in them replaced by what ``change`` makes of it."""
    if is_reference(content):
        return change(content)
    if isinstance(content, Mapping):
        return {key: with_references(value, change) for key, value in content.items()}
    return [with_references(value, change) for value in content] if isinstance(content, list) else content


def check_trusted(code: str, named_in: str, trust_code: bool) -> None:
    """Refuse code that a file names, unless the user trusts it; name the code that is going to be run.

    Parameters
    ----------
    code
        What would be run, ``file.py:name``.
    named_in
        The file that names it, for the message.
    trust_code
        Whether the user has said that it may run.

    Raises
    ------
    UntrustedCodeError
        If it may not run. Nothing of it has been run then.
    UserCodeError
        If there is no such file.
    """
    path, name = split_reference(code)
    digest = code_checksum(path)
    if not trust_code:
        raise UntrustedCodeError(
            f"{named_in}: would run {name} of {path} ({digest[:19]}…), code that darklens has not written; nothing was "
            "run. Read that file; if you trust it, say --trust_code true (in Python: trust_code=True)"
        )
    _say_once(f"running {name} of {path} ({digest[:19]}…), which {named_in} names")


@lru_cache
def _say_once(message: str) -> None:
    log.warning(message)


def code_checksum(path: Path) -> str:
    """Return the SHA-256 of a file of code, as ``sha256:…``.

    Raises
    ------
    UserCodeError
        If it cannot be read.
    """
    try:
        return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserCodeError(f"{path}: there is no such file of code, or it cannot be read") from error


def load_function(reference: str) -> Callable[..., Any]:
    """Return the function or class that ``file.py:name`` names. This runs the file, once in a process.

    Raises
    ------
    UserCodeError
        If there is no such file or function, or the file fails.
    """
    path, name = split_reference(reference)
    if not path.is_file():
        raise UserCodeError(f"{reference}: there is no file {path}")
    function = getattr(_module(path.resolve()), name, None)
    if not callable(function):
        raise UserCodeError(f"{reference}: {path.name} has no function {name}")
    return function


_MODULES = "darklens_user_"


@contextmanager
def named_failures() -> Iterator[None]:
    """Give an error that comes out of code of the user's own the name of its file, line and function; others pass.

    Raises
    ------
    UserCodeError
        In place of an error of which a call in a user's file is part.
    """
    try:
        yield
    except (DarklensError, BrokenPipeError):
        raise
    except Exception as error:
        calls = [
            f"{Path(frame.f_code.co_filename).name}, line {line}, in {frame.f_code.co_qualname}"
            for frame, line in walk_tb(error.__traceback__)
            if str(frame.f_globals.get("__name__")).startswith(_MODULES)
        ]
        if not calls:
            raise
        raise UserCodeError(f"{calls[-1]}: ended with {type(error).__name__}: {error}") from error


@lru_cache
def _module(path: Path) -> Any:
    # Of two files of one name each has its own module, where dataclasses look for what annotations name.
    spec = importlib.util.spec_from_file_location(f"{_MODULES}{path.stem}_{zlib.crc32(str(path).encode()):08x}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[spec.name]
        raise UserCodeError(f"{path}: the file fails with {type(error).__name__}: {error}") from error
    for other in sorted(_beside(module, path)):
        _say_once(
            f"{path.name} imports {other}, which runs and models do not keep; put it into the same file, or install it"
        )
    return module


def _beside(module: Any, path: Path) -> set[str]:
    """Files beside a user's file, or below the present folder, that it imports: those are not copied with it."""
    sources = [getattr(each, "__module__", None) or getattr(each, "__name__", None) for each in vars(module).values()]
    files = [getattr(sys.modules.get(str(name)), "__file__", None) for name in sources if name != module.__name__]
    found = {Path(file).resolve() for file in files if file}
    installed = [Path(place).resolve() for place in (sys.prefix, sys.base_prefix, Path(__file__).parent)]
    return {
        each.name
        for each in found
        if not any(each.is_relative_to(place) for place in installed)
        and (each.parent == path.parent or each.is_relative_to(Path.cwd()))
    }
