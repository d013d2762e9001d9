"""What lies on a volume, whoever put it there, and whether we can write to it.

Our own images keep models, output, input, user and custom_nodes right below the volume's root. Others install
ComfyUI itself on the volume, with these folders inside of it. Those are found and used where they are:
nothing is moved, copied or chowned. All here touches the volume, so it runs in a process that may hang
(pod.storage.beside).
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import asdict, dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Where images install ComfyUI below the root of a volume, in the order in which they are looked for:
# ours (nothing is installed); most images; runpod-workers/comfyui-base; madiator2011/better-comfyui.
HOMES = ("", "ComfyUI", "runpod-slim/ComfyUI", "madapps/ComfyUI")
OURS = ".podkiln"  # where our own files are on a volume
PROBE_BYTES = 4096  # a full volume still takes an empty file

_MEANING = {
    errno.EROFS: "is read-only",
    errno.EACCES: "may not be written by this pod's user",
    errno.EPERM: "may not be written by this pod's user",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full (its quota is used up)",
}


@dataclass(frozen=True)
class Survey:
    """What a volume offers.

    `trouble` says why it cannot be written, None when it can. `output`, `input` and `user` are where ComfyUI
    has its folders; `nodes` are the custom_nodes folders that are there, and `models` the models folders of
    other homes than the root. `homes` are those that others made. `stuck` names folders that cannot be
    written although the volume can.
    """

    root: str
    trouble: str | None
    output: str
    input: str
    user: str
    nodes: tuple[str, ...]
    models: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    stuck: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Survey:
        """Read what `to_json` made."""
        frozen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**frozen)


def fresh(root: str) -> Survey:
    """Return what an empty volume offers."""
    root = root.rstrip("/")
    return Survey(
        root=root or "/",
        trouble=None,
        output=f"{root}/output",
        input=f"{root}/input",
        user=f"{root}/user",
        nodes=(f"{root}/custom_nodes",),
    )


def survey(root: str, *, write: bool) -> Survey:
    """Look at a volume and, with `write`, make the folders that are not there yet. Never raises OSError.

    A network volume may take a tenth of a second for each question, so few are asked.
    """
    homes = _homes(root.rstrip("/"))
    new = fresh(root)
    trouble = _try_to_write(homes[0]) if write else forbidden(new.root)
    places = {kind: _kind(homes, kind) for kind in ("output", "input", "user")}
    nodes = _custom_nodes(homes)
    missing = [getattr(new, kind) for kind, place in places.items() if place is None]
    if trouble is None:
        missing += [] if nodes else new.nodes
        nodes = nodes or list(new.nodes)
        trouble = _make(missing) if write else None
    chosen = {kind: place or getattr(new, kind) for kind, place in places.items()}
    return Survey(
        root=new.root,
        trouble=trouble,
        nodes=tuple(nodes),
        models=tuple(f"{home.path}/models" for home in homes[1:] if "models" in home.folders),
        homes=tuple(home.path for home in homes[1:]),
        stuck=tuple(path for path in places.values() if path and trouble is None and forbidden(path)),
        **chosen,
    )


@dataclass(frozen=True)
class _Home:
    """A folder in which ComfyUI's folders may lie; those that are there."""

    path: str
    folders: frozenset[str]


def _homes(root: str) -> list[_Home]:
    """Return the root and the installed ComfyUIs below it."""
    found = [_Home(root, _folders(root))]
    for below in HOMES[1:]:
        first = below.partition("/")[0]
        if first in found[0].folders and (folders := _folders(f"{root}/{below}")):
            found.append(_Home(f"{root}/{below}", folders))
    return found


def _folders(path: str) -> frozenset[str]:
    """Return the folders in a folder; a link that leads nowhere, as some images leave them, is none."""
    try:
        with os.scandir(path or "/") as entries:
            return frozenset(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return frozenset()


def _kind(homes: list[_Home], kind: str) -> str | None:
    """Return the one folder of a kind: the first with something in it, else the first that is there."""
    there = [f"{home.path}/{kind}" for home in homes if kind in home.folders]
    if len(there) > 1:
        return next((folder for folder in there if not _empty(folder)), there[0])
    return there[0] if there else None


def _custom_nodes(homes: list[_Home]) -> list[str]:
    """Return all custom_nodes folders; new nodes are installed into the first, which is the one in use."""
    there = [f"{home.path}/custom_nodes" for home in homes if "custom_nodes" in home.folders]
    return sorted(there, key=_empty) if len(there) > 1 else there


def _empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _try_to_write(top: _Home) -> str | None:
    """Write a small file and remove it; returns why that failed."""
    folder = f"{top.path}/{OURS}"
    probe = f"{folder}/probe-{os.urandom(8).hex()}"
    try:
        if OURS not in top.folders:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - pathlib costs 10 ms that a boot waits for
        try:
            with open(probe, "wb") as file:  # noqa: PTH123
                file.write(bytes(PROBE_BYTES))
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(probe)  # noqa: PTH108
    except OSError as error:
        return _meaning(error)
    return None


def _make(folders: list[str]) -> str | None:
    try:
        for folder in folders:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        return _meaning(error)
    return None


def forbidden(path: str) -> str | None:
    """Say why a folder, or the first one above that is there, cannot be written, without trying."""
    while not os.access(path, os.W_OK | os.X_OK):
        if os.path.exists(path) or path in ("", "/"):  # noqa: PTH110
            read_only = os.statvfs(path or "/").f_flag & os.ST_RDONLY
            return _MEANING[errno.EROFS if read_only else errno.EACCES]
        path = os.path.dirname(path)  # noqa: PTH120
    return None


def _meaning(error: OSError) -> str:
    return _MEANING.get(error.errno or 0, f"cannot be written ({error.strerror or error})")
