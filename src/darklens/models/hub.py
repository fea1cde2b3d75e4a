"""Find the pretrained weights of timm's networks in the local cache, or fetch them from the hub, which is asked once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from darklens.progress import Advance, progress_bar

ANSWER_WITHIN = 5.0
"""Seconds in which the hub must answer. A hub that does is seldom slower than one; one that does not costs so long."""
FILES = ("model.safetensors", "pytorch_model.bin")
"""Files of weights in timm's repositories, the one to be preferred first."""


def pretrained_file(architecture: str) -> Path | None:
    """Return the local file of a timm network's pretrained weights; None if timm does not keep them on the hub.

    A file in the cache is used without any request. Otherwise the hub gets one request, without the retries that would
    keep a user without a network waiting for a minute; proxies, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are respected.

    Raises
    ------
    Exception
        Of the hub's client, if the weights are not in the cache and cannot be fetched.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.hf_hub_id or config.custom_load == "hf":
        return None
    repository, _, revision = config.hf_hub_id.partition("@")
    names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    for name in names:
        if isinstance(cached := try_to_load_from_cache(repository, name, revision=revision or None), str):
            return Path(cached)
    with progress_bar(f"fetching the weights of {architecture} (MiB)") as advance:
        return Path(_fetch(repository, names, revision or None, advance))


def _fetch(repository: str, names: Sequence[str], revision: str | None, advance: Advance) -> str:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    missing: EntryNotFoundError | None = None
    for name in names:
        try:
            _ask(repository, name, revision)
        except EntryNotFoundError as error:
            missing = error
            continue
        reporting = _reporting_to(advance)
        return hf_hub_download(
            repository, name, revision=revision, etag_timeout=ANSWER_WITHIN, tqdm_class=reporting, library_name="timm"
        )
    assert missing is not None
    raise missing


def _ask(repository: str, name: str, revision: str | None) -> None:
    """Ask the hub for a file's headers, with one request; raises an error of its client if it does not have the file."""
    from huggingface_hub import get_session, get_token, hf_hub_url
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    # The client's own functions would try again where nobody answers, and may fetch something else before.
    headers = {"authorization": f"Bearer {token}"} if (token := get_token()) else {}
    url = hf_hub_url(repository, name, revision=revision)
    hf_raise_for_status(get_session().head(url, headers=headers, timeout=ANSWER_WITHIN, follow_redirects=False))


def _reporting_to(advance: Advance) -> type[Any]:
    """A progress bar in the form that the hub's client asks for, which draws nothing itself and tells ``advance``."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reporting(tqdm):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **options | {"disable": True})
            self.fetched = options.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.fetched += n or 0
            if self.total:
                advance(int(self.fetched) >> 20, int(self.total) >> 20)

    return Reporting
