"""What is in the layers of a runtime: nothing that hides weights, which lie below it, or adds to them.

A layer is only right when every engine unpacks it to the same files, whether it unpacks each layer by itself
(overlayfs) or onto the ones below. So nothing may depend on order or on links: a member below a link, a path
that comes twice, a hard link to what is not a file of the same layer before it, are findings.

Sources: OCI image-spec v1.1, layer.md (whiteouts); containerd pkg/archive/tar.go; moby go-archive diff.go.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeAlias

from pod.util.printable import printable
from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.plan.weight_layers import ROOT
from podkiln.verify import archive, unpack

if TYPE_CHECKING:
    import hashlib
    from collections.abc import Iterable, Iterator

    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.verify.archive import Member

_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_WEIGHTS: Final = f"{ROOT}/"
_MOST_FINDINGS: Final = 10
"""Of one layer: enough to see what it is about."""
_MOST_IMPLIED: Final = 100_000
"""Folders of one layer without a member of their own: a bound on memory, far above what layers have."""
_MOST_MEMBERS: Final = 500_000
"""Of one layer: some 350 bytes of memory each, and five times what large runtimes have in all layers."""
_MOST_PATH_BYTES: Final = 64 << 20
"""Of the paths of one layer together: what a member of a deep path takes of memory and time."""
_MOST_OF_IMAGE: Final = 2 * _MOST_MEMBERS


class _TooManyError(Exception):
    """A layer has more members than are held in memory; the message says so, after its name."""


@dataclass(frozen=True)
class LayerContents:
    """What was read of a layer: what is wrong with it by itself, and all that is in it."""

    layer: str
    findings: tuple[str, ...]
    members: tuple[Member, ...] = ()


@dataclass(slots=True)
class _Folder:
    """A folder: what is in it by name, and whether a member made it; otherwise its contents did.

    `late`: the member came after something in it, which engines have unpacked before there was the folder.
    """

    told: bool = False
    late: bool = False
    entries: dict[str, _Entry] = field(default_factory=dict)


_Entry: TypeAlias = "_Folder | str"
"""A folder, or in a word what else there is: archive.Kind."""


def read(number: int, blob: Descriptor, diff_id: Digest, chunks: Iterable[bytes]) -> LayerContents:
    """Read one layer to its end.

    Args:
        number: Which one of the image it is, from 0.
        blob: Its descriptor.
        diff_id: What the config says of it: the digest of its uncompressed tar.
        chunks: Its bytes, which raise IntegrityError when they are not those of its digest.
    """
    name = f"Layer {number} ({spec.short(blob.digest)})"
    hashed = spec.hasher(diff_id)
    try:
        tar = _hashing(unpack.unpacked(blob.media_type, chunks), hashed)
        members = tuple(_counted(archive.members(tar)))
    except _TooManyError as wrong:
        return LayerContents(name, (f"{name} {wrong}",))
    except IntegrityError as wrong:
        return LayerContents(name, (f"{name}: {wrong}",))
    except unpack.UnclearError as wrong:
        return LayerContents(name, (f"{name} cannot be read in one way only: {wrong}.",))
    if hashed.hexdigest() == diff_id.partition(":")[2]:
        return LayerContents(name, (), members)
    held = f"{hashed.name}:{hashed.hexdigest()}"
    return LayerContents(name, (f"{name} holds a tar of {held}; the config says {diff_id}.",), members)


def _counted(members: Iterable[Member]) -> Iterator[Member]:
    """Yield members as long as their number and paths are bounded. Raises _TooManyError."""
    left = _MOST_PATH_BYTES
    for number, member in enumerate(members):
        left -= len(member.path) + len(member.target)
        if number == _MOST_MEMBERS or left < 0:
            raise _TooManyError(
                f"holds more than {_MOST_MEMBERS} files and folders, or paths of more than "
                f"{_MOST_PATH_BYTES >> 20} MiB together: too many to be checked."
            )
        yield member


def _hashing(chunks: Iterable[bytes], hashed: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        hashed.update(chunk)
        yield chunk


def findings(layers: Iterable[LayerContents]) -> Iterator[str]:
    """Say what is wrong with the layers of a runtime, lowest first, and what in them hides weights."""
    below, total = _Folder(told=True), 0
    for layer in layers:
        total += len(layer.members)
        if total - len(layer.members) <= _MOST_OF_IMAGE < total:
            yield (
                f"{layer.layer} and those below it hold more than {_MOST_OF_IMAGE} files and folders: "
                "too many to be checked."
            )
        if total > _MOST_OF_IMAGE:
            yield from layer.findings
            continue
        found = (f"{layer.layer} {what}" for what in _layer_findings(below, layer.members))
        yield from islice(found, _MOST_FINDINGS)
        yield from layer.findings


def _layer_findings(below: _Folder, members: Iterable[Member]) -> Iterator[str]:
    own = _Own()
    for member in members:
        if hides_weights(member.path, folder=member.kind == "folder"):
            yield f"holds {printable(member.path)}: a runtime leaves /{ROOT} to the weights."
        elif member.kind == "folder" and not member.usual and _touches_weights(member.path):
            yield (
                f"holds the folder /{printable(member.path)} with another mode than 0755, another owner than "
                f"root, or extended attributes: a runtime leaves /{ROOT} to the weights."
            )
        elif problem := own.add(member):
            yield f"holds {printable(member.path)} {problem}: engines unpack that differently."
    yield from own.contradictions()
    yield from own.late_deletions(below)
    own.take_away(below)
    yield from _merge(below, own.root, "")


def hides_weights(path: str, *, folder: bool) -> bool:
    """Tell whether a member of a layer adds to the weights below it, or hides them.

    Folders on the way to them are harmless; anything else in such a folder's place is not.
    """
    parent, _, name = path.rpartition("/")
    if name == _OPAQUE:
        return _touches_weights(parent)
    if name.startswith(_WHITEOUT):
        hidden = name.removeprefix(_WHITEOUT)
        return _touches_weights(f"{parent}/{hidden}" if parent else hidden)
    way = folder and _WEIGHTS.startswith(f"{path}/" if path else "")
    return not way and _touches_weights(path)


def _touches_weights(path: str) -> bool:
    """Tell whether a path is the weights' folder, leads to it, or lies in it."""
    return not path or _WEIGHTS.startswith(f"{path}/") or path.startswith(_WEIGHTS)


class _Own:
    """The members of one layer, as a tree of their own, and what they take away from the layers below."""

    def __init__(self) -> None:
        self.root = _Folder(told=True)
        self._implied = 0
        self._whiteouts: dict[str, None] = {}
        self._opaque: list[str] = []
        self._late: list[str] = []  # those of them that come after something in their folder

    def add(self, member: Member) -> str | None:
        """Add a member in its turn; return what is wrong with it, as the end of "holds PATH"."""
        if not member.path:
            return None
        *way, name = member.path.split("/")
        if any(part.startswith(_WHITEOUT) for part in way):
            return "below a whiteout"
        folder = self._folder(way)
        if folder is None:
            return "below something that is not one of its folders"
        if name.startswith(_WHITEOUT):
            return self._take_away(folder, member, name)
        return self._put(folder, name, member)

    def _put(self, folder: _Folder, name: str, member: Member) -> str | None:
        there = folder.entries.get(name)
        if member.kind == "folder":
            if isinstance(there, str):
                return "twice"
            folder.entries[name] = here = there or _Folder(told=True)
            here.late = here.late or not here.told
            here.told = True
            return None
        if there is not None:
            return "twice"
        if member.kind == "whiteout device":
            return "as a whiteout device"
        # A hard link to a symbolic link is that link once more.
        found = self._find(member.target) if member.kind == "hard link" else member.kind
        if not isinstance(found, str) or (member.kind == "hard link" and found not in ("file", "link")):
            return f"as a hard link to {printable(member.target)}, which is not an earlier file of this layer"
        folder.entries[name] = found
        return None

    def _take_away(self, folder: _Folder, member: Member, name: str) -> str | None:
        hidden = name.removeprefix(_WHITEOUT)
        if member.kind != "file" or member.size:
            return "as a whiteout that is not an empty file"
        parent = member.path[: -len(name)]
        if name == _OPAQUE:
            self._opaque.append(parent)
            if folder.entries:
                self._late.append(parent)
            return None
        plain = hidden not in ("", ".", "..") and not hidden.startswith(_WHITEOUT)
        if not plain or f"{parent}{hidden}" in self._whiteouts:
            return "as a whiteout of an invalid name, or a second one"
        self._whiteouts[f"{parent}{hidden}"] = None
        return None

    def contradictions(self) -> Iterator[str]:
        """Say what the layer both holds and deletes."""
        for path in self._whiteouts:
            if self._find(path) is not None:
                yield f"both holds and deletes {printable(path)}: engines unpack that differently."

    def late_deletions(self, below: _Folder) -> Iterator[str]:
        """Say where all of a folder is deleted after something of this layer was put into it."""
        for parent in self._late:
            folder = _find(below, parent.rstrip("/"))
            if folder is not None and not (isinstance(folder, _Folder) and not folder.entries):
                yield (
                    f"holds {printable(parent + _OPAQUE)} after something else in that folder: "
                    "engines unpack that differently."
                )

    def _folder(self, way: Iterable[str]) -> _Folder | None:
        """Return a folder of the layer, made where it is not there yet; None where something else is."""
        here = self.root
        for name in way:
            inner = here.entries.get(name)
            if inner is None and self._implied < _MOST_IMPLIED:
                inner = here.entries[name] = _Folder()
                self._implied += 1
            if not isinstance(inner, _Folder):
                return None
            here = inner
        return here

    def _find(self, path: str) -> _Entry | None:
        return _find(self.root, path)

    def take_away(self, below: _Folder) -> None:
        """Delete from the layers below what this one deletes."""
        for path in self._whiteouts:
            parent, _, name = path.rpartition("/")
            folder = _find(below, parent)
            if isinstance(folder, _Folder):
                folder.entries.pop(name, None)
        for path in self._opaque:
            folder = _find(below, path.rstrip("/"))
            if isinstance(folder, _Folder):
                folder.entries.clear()


def _find(root: _Folder, path: str) -> _Entry | None:
    here: _Entry | None = root
    for name in path.split("/") if path else ():
        here = here.entries.get(name) if isinstance(here, _Folder) else None
    return here


def _merge(below: _Folder, own: _Folder, path: str) -> Iterator[str]:
    """Put a layer's tree over those below it; yield where it needs a folder that is something else there."""
    waiting = [(below, own, path)]
    while waiting:
        lower, upper, at = waiting.pop()
        for name, entry in upper.entries.items():
            there = lower.entries.get(name)
            if not isinstance(entry, _Folder):
                lower.entries[name] = entry
                continue
            if not isinstance(there, _Folder):
                if there is not None and (entry.late or not entry.told):
                    held, within = printable(at + name), printable(f"{at}{name}/{_something(entry)}")
                    yield (
                        f"holds {within}{' before its folder' if entry.late else ''}, and "
                        f"{held} is a {there} in a layer below: engines unpack that differently."
                    )
                there = lower.entries[name] = _Folder(told=True)
            waiting.append((there, entry, f"{at}{name}/"))


def _something(folder: _Folder) -> str:
    """Return the way from a folder to something that a member has put below it."""
    way, here = [], folder
    while here.entries:
        name, entry = next(iter(here.entries.items()))
        way.append(name)
        if not isinstance(entry, _Folder):
            break
        here = entry
    return "/".join(way)
