"""Put rendered files on disk as a build context: all of it or nothing."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from typing import TYPE_CHECKING

from podkiln.errors import UsageError
from podkiln.util import disk_space, lock_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from podkiln.render.build_context import File

# What a build adds to a context, and a later one keeps until it has something better.
PRESERVED = ("image", "report.json")


@contextlib.contextmanager
def exclusive_lock(out: Path) -> Iterator[None]:
    """Hold the output folder: two builds into one would mix. Raises UsageError when another holds it."""
    with lock_file.open_in(out, f"--out: {out}") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another build is writing to {out}.", hint="Wait for it, or give this one its own --out DIR."
            ) from None
        yield


def write(files: Mapping[str, File], folder: Path) -> None:
    """Write a context aside and put it in its place by rename; what earlier builds made stays.

    Modes are set whatever the umask is: COPY takes them into the image. Raises PodkilnError for a full disk.
    """
    recover_from_crash(folder)
    aside, old = _beside(folder, "next"), _beside(folder, "old")
    try:
        with disk_space.room(folder, sum(len(file.content) for file in files.values())):
            _write(files, aside)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    for name in PRESERVED:
        if (old / name).exists():
            (old / name).rename(folder / name)
    shutil.rmtree(old, ignore_errors=True)


def _write(files: Mapping[str, File], aside: Path) -> None:
    for path, file in files.items():
        target = aside / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content)
        target.chmod(file.mode)
    for directory in (aside, *(path for path in aside.rglob("*") if path.is_dir())):
        directory.chmod(0o755)


def recover_from_crash(folder: Path) -> None:
    """Delete what a killed run left, and restore what it had moved away."""
    aside, old = _beside(folder, "next"), _beside(folder, "old")
    shutil.rmtree(aside, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)
    for name in PRESERVED:
        _restore(_beside(folder / name, "old"), folder / name)
        _restore(old / name, folder / name)
    shutil.rmtree(old, ignore_errors=True)


def _restore(aside: Path, place: Path) -> None:
    if aside.exists() and not place.exists():
        aside.rename(place)


def replace_folder(new: Path, place: Path) -> None:
    """Put a finished folder in the place of another; `recover_from_crash` mends a kill in between."""
    old = _beside(place, "old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f".{folder.name}.{word}")
