"""How the files of two layers differ, in words for people. Pure.

Of each file what differs is named, first as the registry has it: `size 12 -> 14 bytes`. A file that differs
in its time alone comes after all others: one changed file gives its folder, too, another time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from pod.util.printable import printable
from podkiln.canonical_layers.entries import (
    BLOCK,
    CHARACTER,
    FIFO,
    FILE,
    FOLDER,
    HARD_LINK,
    LINK,
    OPAQUE,
    WHITEOUT,
    Entry,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MOST_NAMED: Final = 10
"""Files of one layer that are named."""
THERE: Final = "only in the registry"
HERE: Final = "only in the rebuild"
_KIND: Final = "kind"
_TIME: Final = "time"
_DIGITS: Final = 12
_KINDS: Final = {FILE: "file", FOLDER: "folder", FIFO: "pipe"}
_ENDS: Final = (datetime.min.replace(tzinfo=UTC).timestamp(), datetime.max.replace(tzinfo=UTC).timestamp())


@dataclass(frozen=True)
class FileDifference:
    """One path. `aspects`: what differs, by name, as `size` or `time`; `text`: the same with both values."""

    path: bytes
    aspects: tuple[str, ...]
    text: str

    def __str__(self) -> str:
        return f"{_shown(self.path)}: {self.text}"


def compare(there: Sequence[Entry], here: Sequence[Entry], only_here: str = HERE) -> list[FileDifference]:
    """Return how the files of a layer in a registry differ from those of the same layer built again.

    `only_here`: what is said of those that the registry lacks, where they were not built again.
    """
    registry, rebuild = ({each.path: each for each in entries} for entries in (there, here))
    found = []
    for path in registry.keys() | rebuild.keys():
        one, other = registry.get(path), rebuild.get(path)
        if one and other:
            aspects = list(_aspects(one, other))
            if aspects:
                names, texts = zip(*aspects, strict=True)
                found.append(FileDifference(path, names, ", ".join(texts)))
        elif one:
            found.append(FileDifference(path, (THERE,), f"{THERE}, {_told(one)}"))
        elif other:
            found.append(FileDifference(path, (HERE,), f"{only_here}, {_told(other)}"))
    return sorted(found, key=lambda each: (each.aspects == (_TIME,), each.path))


def summary(found: Sequence[FileDifference]) -> str:
    """Return how many files differ, and in what: `3 files differ: 1 only in the registry, 2 in size`."""
    counts = Counter(aspect for each in found for aspect in each.aspects)
    names = (THERE, HERE, _KIND, *(name for name, _, _, _ in _ASPECTS))
    told = [
        f"{counts[name]} {name if name in (THERE, HERE) else f'in {name}'}" for name in names if counts[name]
    ]
    what = "1 file differs" if len(found) == 1 else f"{len(found)} files differ"
    return f"{what}: {', '.join(told)}"


def _aspects(one: Entry, other: Entry) -> Iterator[tuple[str, str]]:
    """Yield name and text of all that differs between two entries of one path."""
    if one.kind != other.kind:
        yield _KIND, f"{_KIND} {_kind(one)} -> {_kind(other)}"
        return
    for name, shown, unit, keys in _ASPECTS:
        if any(getattr(one, key) != getattr(other, key) for key in keys):
            yield name, f"{name} {shown(one)} -> {shown(other)}{unit}"


def _told(entry: Entry) -> str:
    """Return what an entry is, for one that is on one side alone."""
    if entry.name.startswith(WHITEOUT):
        return _kind(entry)
    size = f" of {entry.size} byte{'' if entry.size == 1 else 's'}" if entry.kind == FILE else ""
    return f"a {_kind(entry)}{size}, mode {entry.mode:04o}, owner {entry.owner}:{entry.group}"


def _kind(entry: Entry) -> str:
    if entry.name == OPAQUE:
        return "deletes all that layers below have in the folder"
    if entry.name.startswith(WHITEOUT):
        return "deletes what layers below have of that name"
    if entry.kind == LINK:
        return f"link to {_shown(entry.target, root='')}"
    if entry.kind == HARD_LINK:
        return f"second name of {_shown(entry.target)}"
    if entry.kind in (CHARACTER, BLOCK):
        return "device {}:{}".format(*entry.device)
    return _KINDS[entry.kind]


def _attributes(entry: Entry) -> str:
    pairs = (f"{_shown(name, root='')}={value.hex()}" for name, value in entry.attributes)
    return printable(" ".join(pairs) or "none")


def _time(seconds: int) -> str:
    low, high = _ENDS
    if not low <= seconds <= high:
        return str(seconds)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(path: bytes, root: str = "/") -> str:
    return printable(root + path.decode(errors="backslashreplace"))


# What may differ between two entries of one kind: name, how it is shown, its unit, and what is compared.
_ASPECTS: Final[tuple[tuple[str, Callable[[Entry], str], str, tuple[str, ...]], ...]] = (
    ("size", lambda entry: str(entry.size), " bytes", ("size",)),
    ("content", lambda entry: f"sha256:{entry.content.hex()[:_DIGITS]}", "", ("content",)),
    ("target", lambda entry: _shown(entry.target, root=""), "", ("target",)),
    ("device", lambda entry: "{}:{}".format(*entry.device), "", ("device",)),
    ("mode", lambda entry: f"{entry.mode:04o}", "", ("mode",)),
    ("owner", lambda entry: f"{entry.owner}:{entry.group}", "", ("owner", "group")),
    ("attributes", _attributes, "", ("attributes",)),
    (_TIME, lambda entry: _time(entry.time), "", ("time",)),
)
