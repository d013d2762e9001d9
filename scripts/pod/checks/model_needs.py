"""What the enabled models need of the card, the RAM and the disk, against what the pod has.

The record is decision.json's data, the models those of models.json.
"""

from __future__ import annotations

import os

from pod.flags.rules import MIB_PER_GB
from pod.util.finding import NOTE, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

LITTLE = 1 << 30  # bytes: with less, temporary files and saved pictures soon fail
_GB = 1e9


def memory(
    record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], reaches: Callable[[int, float], bool]
) -> list[Finding]:
    """Return a finding for each enabled model: how it is to run, what that needs, whether it fits.

    `reaches` tells whether so many MiB are as good as so many nominal GB: `Rules.reaches`.
    """
    if record["gpu"] is None:
        return []
    vram, ram = record["vram_mib"], record["ram_mib"]
    known = {model["id"]: model for model in models}
    return [
        _fit(choice, known[choice["id"]], vram, ram, reaches)
        for choice in record["models"]
        if choice["enabled"] and choice["id"] in known
    ]


def _fit(
    choice: Mapping[str, Any],
    model: Mapping[str, Any],
    vram: int | None,
    ram: int | None,
    reaches: Callable[[int, float], bool],
) -> Finding:
    mode = choice["memory_mode"]
    need = next((each for each in model["memory_modes"] if each["mode"] == mode), model)
    wants = (need["vram_gb"] or 0, need["ram_gb"] or 0)
    lacks = [
        f"{wanted - has / MIB_PER_GB:.1f} GB too little {what}"
        for wanted, has, what in zip(wants, (vram, ram), ("VRAM", "RAM"), strict=True)
        if has is not None and not reaches(has, wanted)
    ]
    how = f"{mode} " if mode else ""
    says = f"model {model['id']}: {how}needs {wants[0]:g} GB of VRAM and {wants[1]:g} GB of RAM"
    if not lacks:
        return Finding(NOTE, "memory", f"{says}, and fits")
    return Finding(WARNING, "memory", f"{says}, which is {' and '.join(lacks)}: it may run out of memory")


def room(
    record: Mapping[str, Any],
    models: Sequence[Mapping[str, Any]],
    roots: Sequence[str],
    free: Callable[[str], int | None] | None = None,
) -> list[Finding]:
    """Return what does not fit on the volume, and disks that are nearly full.

    Args:
        record: The decision.
        models: What the image offers.
        roots: Where models may lie already, the first being where they are fetched to.
        free: Returns the free bytes of the disk that a path is on; None where it cannot be asked.
    """
    free = free or _free
    workspace, local = record["volume"]["workspace"], record["volume"]["local"]
    wanted = _to_fetch(record, models, roots)
    found = []
    left = free(workspace)
    if left is not None and wanted > left:
        found.append(
            Finding(
                WARNING,
                "disk",
                f"{wanted / _GB:.1f} GB of models are to be fetched to {workspace}, which has "
                f"{left / _GB:.1f} GB free: use a larger volume, or enable fewer models",
            )
        )
    for path in dict.fromkeys((workspace, local)):
        has = free(path)
        if has is not None and has < LITTLE:
            found.append(
                Finding(
                    WARNING,
                    "disk",
                    f"the disk of {path} has only {has / 1e6:.0f} MB free: make room, or saving will fail",
                )
            )
    return found


def _to_fetch(record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], roots: Sequence[str]) -> int:
    """Return the bytes that are not there yet, as far as their number is known."""
    chosen = {choice["id"] for choice in record["models"] if choice["fetch"]}
    files = {
        f"{file['folder']}/{file['name']}": file.get("size") or file.get("size_approx") or 0
        for model in models
        if model["id"] in chosen
        for file in model["files"]
        if not file["optional"]
    }
    return sum(size for name, size in files.items() if not any(_is_file(f"{root}/{name}") for root in roots))


def _is_file(path: str) -> bool:
    """Whether a file is there: no for what may not be read or fails, where Path.is_file raises."""
    return os.path.isfile(path)  # noqa: PTH113


def _free(path: str) -> int | None:
    try:
        status = os.statvfs(path)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def sources(record: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield where the files of enabled models come from."""
    chosen = {choice["id"] for choice in record["models"] if choice["fetch"]}
    for model in models:
        if model["id"] in chosen:
            yield from (file["source"] for file in model["files"] if not file["optional"])
