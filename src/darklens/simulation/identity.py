"""What a preset is known by: the numbers that its random streams start from, and a checksum."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from darklens.simulation.library import builtin_names, resolve_preset
from darklens.usercode import code_checksum, references, split_reference


class Content:
    """A preset's name and its whole content, ``resolved``, as YAML would state it."""

    name: str
    resolved: Mapping[str, Any]
    pixels: int

    @property
    def band_names(self) -> list[str]:
        """Names of the bands of the images, in their order."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, int, int]:
        """Bands, height and width of the images."""
        return len(self.band_names), self.pixels, self.pixels

    @property
    def files(self) -> list[Path]:
        """Files that images depend on."""
        raise NotImplementedError

    def code_files(self) -> set[Path]:
        """Return the files of the user's own code that the content names."""
        return {split_reference(reference)[0] for reference in references(self.resolved)}

    @cached_property
    def key(self) -> tuple[int, ...]:
        """Numbers that the preset's random streams start from.

        Those of darklens's own presets follow from the name alone, so that they stay when a later version adds to them;
        those of others follow from the content too, so that two that share a name do not share their lenses. Folders of
        files do not count, nor does the description.
        """
        name = zlib.crc32(self.name.encode())  # the same in every process, which Python's hash is not
        own = self.name.partition(":")[0] in builtin_names()
        if not self.resolved or (own and self.resolved == resolve_preset(self.name)):
            return (name,)
        return (name, int.from_bytes(_digest(self._content)[:8], "little"))

    @property
    def checksum(self) -> str:
        """SHA-256 of what images follow from but the seed: the content and the files that it names, wherever they are."""
        files = {path.name: code_checksum(path) for path in self.files}
        return "sha256:" + _digest({"name": self.name, "content": self._content, "files": files}).hex()

    @property
    def _content(self) -> dict[str, Any]:
        return {key: _without_folders(value) for key, value in self.resolved.items() if key != "description"}


def _digest(content: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).digest()


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(each) for each in value]
    return re.split(r"[/\\]", value)[-1] if isinstance(value, str) else value
