"""What lies on a volume, whoever put it there, and whether we can write to it.

Our own images keep models, output, input, user and custom_nodes right below the volume's root. Others install
ComfyUI itself on the volume, with these folders inside of it. Those are found and used where they are:
nothing is moved, copied or chowned. All here touches the volume, so it runs in a process that may hang
(pod.volume.timed_subprocess). That a folder may not be read, or that the file server fails, is an answer like
others.
"""

from __future__ import annotations

import errno
import os
from types import MappingProxyType

from pod.util import untrusted_files
from pod.util.dataclass import asdict, dataclass, replace
from pod.volume import foreign_layouts, write_access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# Where images install ComfyUI below the root of a volume, in the order in which they are looked for:
# ours (nothing is installed); most images; runpod-workers/comfyui-base; madiator2011/better-comfyui.
HOMES = ("", "ComfyUI", "runpod-slim/ComfyUI", "madapps/ComfyUI")
OURS = ".podkiln"  # where our own files are on a volume
_IMPOSSIBLE = {
    errno.ENOTDIR: "is not a folder, or a part of it is not",
    errno.ENAMETOOLONG: "is longer than a path can be",
}


@dataclass(frozen=True)
class VolumeLayout:
    """What a volume offers.

    `trouble` says why it cannot be written, None when it can. `output`, `input` and `user` are where ComfyUI
    has its folders; `nodes` are the custom_nodes folders that are there, and `models` the models folders of
    other homes than the root, and the root where models lie in it. `homes` are those that others made.
    `stuck` names folders that cannot be written although the volume can. `unread` says why the volume cannot
    even be read; then nothing is known of it; `impossible` says why none can ever be there. `closed` names
    folders that are there and cannot be read; `blocked` those in whose place something else lies, such as a
    file, and `obstacles` says of each what that is.
    `loose` names folders of models right in the root, `webui` are roots of other programs with models,
    `links` are files that link ComfyUI to further folders (pod.volume.foreign_layouts), and `elsewhere` are
    sentences about models that nobody reads.
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
    unread: str | None = None
    impossible: str | None = None
    closed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    obstacles: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()
    webui: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> VolumeLayout:
        """Read what `to_json` made."""
        frozen: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        return cls(**frozen)


def fresh(root: str) -> VolumeLayout:
    """Return what an empty volume offers."""
    root = root.rstrip("/")
    return VolumeLayout(
        root=root or "/",
        trouble=None,
        output=f"{root}/output",
        input=f"{root}/input",
        user=f"{root}/user",
        nodes=(f"{root}/custom_nodes",),
    )


def _begun(root: str) -> tuple[VolumeLayout, _ComfyHome | None]:
    """Return what an empty volume offers, and what lies at this one's top: None where it cannot be used."""
    new = fresh(root)
    try:
        top = _list(root.rstrip("/"))
    except OSError as error:
        return replace(new, unread=f"cannot be read ({error.strerror or error})"), None
    if top.absent in _IMPOSSIBLE:
        return replace(new, impossible=_IMPOSSIBLE[top.absent]), None
    return new, top


def survey_plain(root: str, *, write: bool) -> VolumeLayout:
    """Look at a volume that is only to be written to, and make no folder but OURS. Never raises OSError."""
    new, top = _begun(root)
    if top is None:
        return new
    obstacles = _obstacles(top, [])
    trouble = _try_to_write(top) if write else write_access.forbidden(new.root)
    return replace(
        new,
        trouble=trouble,
        nodes=(),
        blocked=tuple(obstacles),
        obstacles=tuple(f"{path} {what}" for path, what in obstacles.items()),
    )


def survey(root: str, *, write: bool, elsewhere: Mapping[str, Any] = MappingProxyType({})) -> VolumeLayout:
    """Look at a volume and, with `write`, make the folders that are not there yet. Never raises OSError.

    A network volume may take a tenth of a second for each question, so few are asked. `elsewhere` is that of
    folders.json: what models that nobody reads are recognized by.
    """
    new, top = _begun(root)
    if top is None:
        return new
    homes = _homes(top)
    trouble = _try_to_write(top) if write else write_access.forbidden(new.root)
    places = {kind: _kind(homes, kind) for kind in ("output", "input", "user")}
    nodes = _custom_nodes(homes)
    missing = [getattr(new, kind) for kind, place in places.items() if place is None]
    obstacles: dict[str, str] = {}
    if trouble is None:
        missing += [] if nodes else new.nodes
        nodes = nodes or list(new.nodes)
        obstacles = _obstacles(top, missing)
        trouble = write_access.make(missing, obstacles) if write else None
        nodes = [path for path in nodes if path not in obstacles]
    there = [path for path in places.values() if path]
    models = [f"{home.path}/{name}" for home in homes for name in _models(home)]
    models += foreign_layouts.model_folders(top.path, top.folders)
    short = [path for path in there if not os.access(path, os.R_OK | os.W_OK | os.X_OK)]
    others = [path for path in (*nodes, *models) if path not in missing]
    closed = [path for path in (*short, *others) if not os.access(path, os.R_OK | os.X_OK)]
    loose = [name for name in foreign_layouts.LOOSE if name in top.folders]
    return VolumeLayout(
        root=new.root,
        trouble=trouble,
        nodes=tuple(path for path in nodes if path not in closed),
        models=(
            *(path for path in models if path not in (f"{new.root}/models", *closed)),
            *([new.root] if loose else []),
        ),
        homes=tuple(home.path for home in homes[1:]),
        stuck=tuple(path for path in short if trouble is None and path not in closed),
        closed=tuple(closed),
        blocked=tuple(obstacles),
        obstacles=tuple(f"{path} {what}" for path, what in obstacles.items()),
        loose=tuple(loose),
        webui=tuple(foreign_layouts.webuis(top.path, top.folders)),
        links=tuple(link for home in homes for link in home.links),
        elsewhere=tuple(foreign_layouts.elsewhere(top.path, top.folders, top.others, elsewhere)),
        **{kind: place or getattr(new, kind) for kind, place in places.items()},
    )


@dataclass(frozen=True)
class _ComfyHome:
    """A folder in which ComfyUI's folders may lie; those that are there, and its link files.

    `others` are the names of what is no folder; `absent` is the error number for which there is nothing.
    """

    path: str
    folders: frozenset[str]
    links: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()
    absent: int | None = None


def _homes(top: _ComfyHome) -> list[_ComfyHome]:
    """Return the root and the installed ComfyUIs below it, however their names are written."""
    found = [top]
    for below in HOMES[1:]:
        first, _, second = below.partition("/")
        for name in _alike(first, top.folders):
            inner = _look(f"{top.path}/{name}")
            if second:
                inside = [f"{inner.path}/{match}" for match in _alike(second, inner.folders)]
                found += [home for home in map(_look, inside) if home.folders or home.links]
            elif inner.folders or inner.links:
                found.append(inner)
    return found


def _alike(name: str, folders: frozenset[str]) -> list[str]:
    """Return the folders of a name, written in that way first: comfyui and Comfyui are ComfyUI too."""
    return sorted((each for each in folders if each.lower() == name.lower()), key=lambda each: each != name)


def _models(home: _ComfyHome) -> list[str]:
    return _alike("models", home.folders)


def _look(path: str) -> _ComfyHome:
    """Return what is in a folder; nothing where it cannot be read."""
    try:
        return _list(path)
    except OSError:
        return _ComfyHome(path, frozenset())


def _list(path: str) -> _ComfyHome:
    """Return what is in a folder, nothing when it is not there. Raises OSError where it cannot be read.

    A link that leads nowhere, as some images leave them, is no folder.
    """
    try:
        with os.scandir(path or "/") as entries:
            here = list(entries)
    except OSError as error:
        if error.errno in write_access.ABSENT:
            return _ComfyHome(path, frozenset(), absent=error.errno)
        raise
    links = [entry.name for entry in here if entry.name == foreign_layouts.LINKS and _holds(entry.is_file)]
    folders = frozenset(entry.name for entry in here if _holds(entry.is_dir))
    others = frozenset(entry.name for entry in here) - folders
    return _ComfyHome(path, folders, tuple(f"{path}/{name}" for name in links), others)


def _holds(question: Callable[[], bool]) -> bool:
    """Ask what kind an entry is; a link into what fails is of none."""
    try:
        return question()
    except OSError:
        return False


def _kind(homes: list[_ComfyHome], kind: str) -> str | None:
    """Return the one folder of a kind: the first with something in it, else the first that is there."""
    there = [f"{home.path}/{kind}" for home in homes if kind in home.folders]
    if len(there) > 1:
        return next((folder for folder in there if not _empty(folder)), there[0])
    return there[0] if there else None


def _custom_nodes(homes: list[_ComfyHome]) -> list[str]:
    """Return all custom_nodes folders; new nodes are installed into the first, which is the one in use."""
    there = [f"{home.path}/custom_nodes" for home in homes if "custom_nodes" in home.folders]
    return sorted(there, key=_empty) if len(there) > 1 else there


def _empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _try_to_write(top: _ComfyHome) -> str | None:
    """Try it in OURS; returns why that failed. What lies in its place is said by `_obstacles`."""
    folder = f"{top.path}/{OURS}"
    if OURS in top.others or untrusted_files.kind(folder) == "a link":
        return write_access.try_to_write(top.path, make=False)
    return write_access.try_to_write(folder, make=OURS not in top.folders)


def _obstacles(top: _ComfyHome, missing: list[str]) -> dict[str, str]:
    """Return what lies in the place of folders that are needed, by path: they cannot be made."""
    needed = [*missing, *([] if _models(top) else [f"{top.path}/models"])]
    found = {path: write_access.obstacle(path) for path in needed if os.path.basename(path) in top.others}  # noqa: PTH119
    ours = f"{top.path}/{OURS}"
    if OURS in top.others or (OURS in top.folders and untrusted_files.kind(ours) == "a link"):
        found[ours] = write_access.obstacle(ours)
    return found
