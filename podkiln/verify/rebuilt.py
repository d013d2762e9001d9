"""An image in a registry against one that was built again from the same lock: which layers and files differ.

Layers with equal digests are equal. Of the others both are read as streams and compared file by file, as they
are packed on the disk: a layer of any size takes the memory of its list of files.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import printable
from podkiln.canonical_layers import entries
from podkiln.canonical_layers.packed import PackedLayer
from podkiln.errors import IntegrityError
from podkiln.oci import spec
from podkiln.util.quoting import cut, shown
from podkiln.verify import file_differences
from podkiln.verify.blobs import watched
from podkiln.verify.compare import placed
from podkiln.verify.file_differences import MOST_NAMED
from podkiln.verify.unpack import UnclearError, unpacked
from podkiln.weights.assemble import WeightLayer, assemble

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.canonical_layers.entries import Entry
    from podkiln.oci.layout import Layout
    from podkiln.oci.spec import Descriptor, Digest
    from podkiln.plan.plan import Plan
    from podkiln.registry import Progress, Repository
    from podkiln.verify.compare import LocatedLayer, RemoteImage

_ANY_TIME: Final = 1 << 62  # seconds: times are compared as they are
_SHELL: Final = re.compile(r"^RUN (?:\|\d+ (?:[A-Za-z_]\w*=\S* )*)?/bin/sh -c ")
"""What BuildKit puts before a command: how many build arguments it has, these, and the shell."""


@dataclass(frozen=True)
class Difference:
    """One layer, or what else differs. `files`: what differs in it, the first of them; `more`: the others."""

    what: str
    files: tuple[str, ...] = ()
    more: int = 0

    def lines(self) -> Iterator[str]:
        """Yield it as people read it."""
        yield self.what
        yield from (f"    {each}" for each in self.files)
        if self.more:
            yield f"    and {self.more} more"

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        return {"finding": self.what, "files": list(self.files), "more": self.more}


@dataclass(frozen=True)
class _Layer:
    """A layer of the runtime: its place among all of its image, and the instruction that made it."""

    number: int
    blob: Descriptor
    instruction: str

    def __str__(self) -> str:
        return f"layer {self.number} ({_instruction(self.instruction)})"


@dataclass(frozen=True)
class Comparison:
    """What is compared with what.

    Attributes:
        repository: Where the image is.
        held: The image.
        digest: That of its manifest.
        rebuilt: Its runtime, built again; weights are not built, and `verify --deep` reads them.
        folder: An empty folder, for a layer at a time.
        on_progress: Told what is read.
    """

    repository: Repository
    held: RemoteImage
    digest: Digest
    rebuilt: Layout
    folder: Path
    on_progress: Progress

    def findings(self, plan: Plan, known: Mapping[Digest, Digest]) -> Iterator[Difference]:
        """Yield what differs. `known`: what the lock remembers: recipe of a bundle -> digest of its layer.

        Raises RegistryError, IntegrityError for a damaged rebuild, OSError.
        """
        weights = placed(plan.bundles, known, self.held)
        taken = {each.number for each in weights}
        there = [each for each in _layers(self.held) if each.number not in taken]
        here = _layers(self.rebuilt)
        differ = False
        for each in _pairs(there, here):
            if isinstance(each, Difference):
                differ = True
                yield each
            elif each[0].blob.digest != each[1].blob.digest:
                differ = True
                yield self._difference(*each)
        if not differ:
            yield from self._documents(plan, weights)

    def _difference(self, one: _Layer, other: _Layer) -> Difference:
        """Compare two layers file by file; that one of the registry cannot be read is a difference, too."""
        here = spec.short(other.blob.digest)
        lead = f"Its {one} is {spec.short(one.blob.digest)}, and {here} in the rebuild"
        chunks = watched(
            self.repository.read(one.blob), f"layer {one.number}", one.blob.size, self.on_progress
        )
        try:
            diff_id, held = self._entries(one.blob, chunks, "there")
        except (IntegrityError, UnclearError) as wrong:
            return Difference(f"{lead}; its files cannot be compared: {str(wrong).rstrip('.')}.")
        own, made = self._entries(other.blob, self.rebuilt.chunks(other.blob), "here")
        found = file_differences.compare(held, made)
        if not found:
            how = "compressed in another way" if diff_id == own else "in a tar that is written in another way"
            return Difference(f"{lead}: the same files {how}.")
        named = tuple(map(str, found[:MOST_NAMED]))
        what = f"{lead}; {file_differences.summary(found)} (registry -> rebuild):"
        return Difference(what, named, len(found) - len(named))

    def _entries(self, blob: Descriptor, chunks: Iterable[bytes], name: str) -> tuple[Digest, list[Entry]]:
        """Return the digest of a layer's tar, and what it holds.

        Raises IntegrityError, UnclearError, OSError.
        """
        place = self.folder / name
        try:
            layer = PackedLayer.pack(unpacked(blob.media_type, chunks), place)
            with layer.open() as tar:
                return layer.diff_id, entries.read(tar, "it", _ANY_TIME)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _documents(self, plan: Plan, weights: Sequence[LocatedLayer]) -> Iterator[Difference]:
        """Compare config and manifest with those of the rebuild, once all layers are equal."""
        below: list[WeightLayer] = []
        above: list[WeightLayer] = []
        for each in weights:
            (above if each.bundle in plan.above else below).append(WeightLayer(each.bundle, each.blob))
        made = assemble(self.rebuilt.manifest, self.rebuilt.config, below, above)
        if made.descriptor.digest == self.digest:
            return
        told = list(_json_differences(self.held.config.document, made.config.document, ""))
        if told:
            what = f"Its config is not that of the rebuild: {len(told)} values differ (registry -> rebuild):"
            yield Difference(what, tuple(told[:MOST_NAMED]), len(told[MOST_NAMED:]))
            return
        what = "manifest" if made.manifest.config.digest == self.held.manifest.config.digest else "config"
        yield Difference(
            f"Its layers are those of the rebuild, and its {what} is written in another way: its manifest is "
            f"{spec.short(self.digest)}, and {spec.short(made.descriptor.digest)} in the rebuild."
        )


def _layers(image: RemoteImage | Layout) -> list[_Layer]:
    """Return the layers of an image, with what its history says of them where it tells of each."""
    told = [str(row.get("created_by") or "") for row in image.config.layer_history]
    layers = image.manifest.layers
    if len(told) != len(layers):
        told = [""] * len(layers)
    return [_Layer(number, blob, by) for number, (blob, by) in enumerate(zip(layers, told, strict=True))]


def _pairs(there: Sequence[_Layer], here: Sequence[_Layer]) -> Iterator[tuple[_Layer, _Layer] | Difference]:
    """Yield the layers that are of one instruction, and what there is to say of those on one side alone."""
    steps = SequenceMatcher(None, [each.instruction for each in there], [each.instruction for each in here])
    for word, start, end, begin, stop in steps.get_opcodes():
        if word == "equal" or end - start == stop - begin:
            yield from zip(there[start:end], here[begin:stop], strict=True)
            continue
        for each in there[start:end]:
            yield Difference(f"Its {each} is not in the rebuild: {each.blob.digest}, {each.blob.size} bytes.")
        for each in here[begin:stop]:
            yield Difference(f"It lacks a layer that the rebuild has: {_instruction(each.instruction)}.")


def _instruction(created_by: str) -> str:
    """Return an instruction as it stands in a Dockerfile, or its beginning."""
    text = _SHELL.sub("RUN ", created_by.removesuffix(" # buildkit"))
    return cut(printable(text)) or "of which its history does not tell"


def _json_differences(one: Any, other: Any, where: str) -> Iterator[str]:
    """Yield each value that differs between two documents, by its path."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            place = f"{where}.{cut(str(key))}" if where else cut(str(key))
            if key not in other or key not in one:
                told = (shown(each[key]) if key in each else "nothing" for each in (one, other))
                yield f"{place}: {' -> '.join(told)}"
            else:
                yield from _json_differences(one[key], other[key], place)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (each, same) in enumerate(zip(one, other, strict=True)):
            yield from _json_differences(each, same, f"{where}[{number}]")
    elif spec.canonical_json(one) != spec.canonical_json(other):
        yield f"{where}: {shown(one)} -> {shown(other)}"
