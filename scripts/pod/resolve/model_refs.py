"""From a reference to a file: its name, its folder, and the hash that it must have.

The folder follows from what the file is, as CivitAI says and the tensors of a .safetensors file tell. Where
they say nothing, or not the same, the reference is refused, with the way to name the folder.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any, Protocol

from pod.model_refs import filenames
from pod.model_refs.model_ref import LORAS
from pod.model_refs.models_json import ModelFile
from pod.net.http import RefusedError
from pod.net.hubs import request_for
from pod.net.integrity import digest, of_file
from pod.resolve import civitai, remembered
from pod.resolve.folder_choice import ResolvedFile, agreed, of_loras
from pod.resolve.hashes import Resolved
from pod.resolve.model_names import again, another_name, called, safe, say_it, told_name, unvouched
from pod.resolve.resolved_cache import WISHES
from pod.util.article import an
from pod.util.dataclass import replace
from pod.util.pickles import is_pickle
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from pod.model_refs.model_ref import ModelRef
    from pod.resolve.hashes import Resolver

    Note = Callable[[str], None]

_HEADED = frozenset({".safetensors", ".sft"})
_ONE_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}\.")


class Downloaded(Protocol):
    """The part of the store of downloaded models that is asked here."""

    def place(self, file: ModelFile, /) -> Path:
        """Return where a file belongs."""

    def known(self, file: ModelFile, expected: str, size: int | None, /) -> Path | None:
        """Return where the right file lies, as far as that takes no hashing."""


class ModelRefResolver:
    """Resolves references, each once: the results are cached on the volume.

    Args:
        resolver: Asks the hubs, and caches their answers.
        store: Where files lie.
        offered: The files of the image's models, whose names are taken.
    """

    def __init__(self, resolver: Resolver, store: Downloaded, offered: Iterable[ModelFile]) -> None:
        self._resolver = resolver
        self._facts = resolver.facts
        self._store = store
        offered = list(offered)
        self._offered = {file.sha256: file for file in offered if file.sha256}
        self._taken = {
            file.label: (f"sha256:{file.sha256}" if file.sha256 else _origin(file.source), file.model)
            for file in offered
        }
        self._lock = threading.Lock()

    def find(self, unplaced: ModelFile, note: Note) -> ModelFile:
        """Return a wished file with folder, name and hash. Raises RefusedError, OSError."""
        wish = unplaced.wish
        if wish is None:
            return unplaced
        remembered_file = self._remembered(unplaced, wish)
        if remembered_file and (file := self._confirmed(remembered_file, wish, note)):
            self._take(file, self._resolver.resolve(file, note).expected, wish)
            return file
        try:
            found = self._ask(wish, note)
        except (KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"cannot be looked into: its hub answered without {error}") from None
        try:
            folder, name = self._place(wish, found, note)
        except RefusedError as error:
            if not found.remarks:
                raise
            raise RefusedError(f"{error} (it {'; it '.join(found.remarks)})") from None
        if is_pickle(name) and not wish.sha256:  # the name that will be written, however it came about
            raise unvouched()
        sha256 = found.expected.removeprefix("sha256:") if found.expected.startswith("sha256:") else None
        file = replace(
            unplaced,
            folder=folder,
            name=name,
            size=found.size,
            sha256=sha256,
            source=found.source,
            remarks=found.remarks,
        )
        self._take(file, found.expected, wish)
        self._check_place(file, found.expected, wish, note)
        self._remember(file, wish)
        return file

    # --- what it is

    def _ask(self, wish: ModelRef, note: Note) -> ResolvedFile:
        match wish.source["kind"]:
            case "huggingface":
                found = self._of_huggingface(wish, note)
            case "civitai":
                found = self._of_civitai(wish, note)
            case _:
                found = self._of_address(wish, note)
        if wish.sha256 and found.expected != f"sha256:{wish.sha256}":
            raise RefusedError(
                f"has {found.expected} at its source, and not the sha256 that was given for it"
            )
        return found

    def _of_huggingface(self, wish: ModelRef, note: Note) -> ResolvedFile:
        name = told_name(wish) or ""
        if wish.sha256:
            return ResolvedFile(name, wish.source, f"sha256:{wish.sha256}")
        if is_pickle(name):
            raise unvouched()
        resolved = self._resolver.resolve(replace(ModelFile.wished(wish), name=name), note)
        source = {**wish.source, "revision": resolved.revision}
        if not resolved.expected.startswith("sha256:"):
            self._resolver.pin(source, resolved)
        return ResolvedFile(name, source, resolved.expected, resolved.size)

    def _of_civitai(self, wish: ModelRef, note: Note) -> ResolvedFile:
        source = wish.source
        version, page, said = self._resolver.civitai(source["version"], note)
        if source.get("model") not in {None, version.model}:
            raise RefusedError(
                f"names a version of another model: {source['version']} belongs to {version.model}; "
                f"write civitai:{version.model}@{source['version']} if that is meant"
            )
        row = self._facts.terms.choose(version, source, page)
        chosen = "file" in source or "format" in source.get("choice", {})
        if not (wish.sha256 or chosen):
            row = civitai.safer(version, row)
        said += self._facts.terms.check_file(row, page, token=self._resolver.has_token)
        if row.unsafe and not wish.sha256:
            raise unvouched()
        expected = civitai.sha256(row, page, "add the one that you trust, #sha256=…")
        if query := civitai.query(row):
            source = {**source, "query": query}
        claimed = self._facts.types.claimed((row.type, version.type))
        if claimed is None and self._facts.types.is_no_model(version.type):
            raise RefusedError(f"is of the type {version.type} at {page}, which is not a model")
        meant = self._facts.types.by_air(wish.address.kind)
        if meant and claimed and claimed is not meant:
            raise RefusedError(
                f"is {an(shown(version.type, 80))} on CivitAI, but {an(str(wish.address.kind))} by its AIR: "
                "copy that again"
            )
        return ResolvedFile(safe(row.name), source, f"sha256:{expected}", None, claimed, tuple(said))

    def _of_address(self, wish: ModelRef, note: Note) -> ResolvedFile:
        request = request_for(wish.source, self._resolver.hubs)
        name = told_name(wish) or self._resolver.asker.name(request, note) or ""
        if not filenames.suffix(name):
            raise RefusedError(
                "does not say what its file is called: say it beforehand, "
                f"FOLDER/NAME.safetensors={again(wish)}"
            )
        return ResolvedFile(safe(name), wish.source, f"sha256:{wish.sha256}")

    # --- where it belongs

    def _place(self, wish: ModelRef, found: ResolvedFile, note: Note) -> tuple[str, str]:
        """Return folder and name. Raises RefusedError."""
        name = called(wish, found.name)
        if offered := self._offered_as(wish, found.expected):
            return offered.folder, offered.name
        return wish.folder or self._folder(wish, found, note), name

    def _offered_as(self, wish: ModelRef, expected: str) -> ModelFile | None:
        """Return the same file of the image, where the word leaves open that it is called as there."""
        offered = self._offered.get(expected.removeprefix("sha256:"))
        open_ = not wish.name and not wish.only_lora
        return offered if offered and open_ and wish.folder in {None, offered.folder} else None

    def _folder(self, wish: ModelRef, found: ResolvedFile, note: Note) -> str:
        if _ONE_OF_SEVERAL.search(found.name):
            raise RefusedError(f"is one piece of several, of which ComfyUI loads none: {say_it(wish)}")
        told = None
        if filenames.suffix(found.name) in _HEADED:
            request = request_for(found.source, self._resolver.hubs)
            told = self._facts.types.of(self._resolver.asker.header(request, note))
        if wish.only_lora:
            return of_loras(wish, told or found.claimed)
        result = agreed(wish, told, found)
        if result.folder is None:
            raise RefusedError(f"{result.homeless}: {say_it(wish, result.beside)}")
        return result.folder

    def _take(self, file: ModelFile, expected: str, wish: ModelRef) -> None:
        """Let no two files of one run have one name. Raises RefusedError."""
        with self._lock:
            there, owner = self._taken.setdefault(file.label, (expected, wish.word))
        if there not in {expected, _origin(file.source)}:
            raise RefusedError(
                f"would be {file.label}, as {owner} is, which is another file: {another_name(wish, file)}"
            )

    def _check_place(self, file: ModelFile, expected: str, wish: ModelRef, note: Note) -> None:
        """Leave alone what somebody else put there under this name. Raises RefusedError, OSError."""
        place = self._store.place(file)
        if not place.is_file() or self._store.known(file, expected, file.size):
            return
        size = place.stat().st_size
        wanted = self._resolver.size(file, None, note) if file.size is None else file.size
        note(f"{place} is there; its hash is checked")
        if wanted not in {None, size} or digest(of_file(place), size, expected) != expected:
            raise RefusedError(
                f"would be {place}, where another file lies: move that away, or {another_name(wish, file)}"
            )

    # --- what was found before

    def _remembered(self, unplaced: ModelFile, wish: ModelRef) -> ModelFile | None:
        try:
            file = remembered.read(self._resolver.pins.get(WISHES, wish.key), unplaced, wish)
            return file if self._is_place_of(file, wish) else None
        except (KeyError, TypeError, ValueError, AttributeError, RefusedError):
            return None  # nothing, nothing to go by, or another file than the word states

    def _confirmed(self, file: ModelFile, wish: ModelRef, note: Note) -> ModelFile | None:
        """Return a remembered file; None where its hash is not that of the commit that the word states.

        Raises RefusedError.
        """
        if wish.sha256 or file.sha256 is None or not remembered.is_pinned(wish.source):
            return file
        record = Resolved(f"sha256:{file.sha256}", file.size, file.source["revision"])
        found = self._resolver.resolve(replace(file, sha256=None), note, record)
        return replace(file, size=found.size) if found.expected == record.expected else None

    def _is_place_of(self, file: ModelFile, wish: ModelRef) -> bool:
        """Tell whether a hub's answer could have led to a remembered place; says no to an unvouched pickle.

        Raises RefusedError, ValueError for a name that the word cannot have.
        """
        told = remembered.name_told(wish) or wish.name or safe(file.name)
        name = called(wish, told)
        if is_pickle(name) and not wish.sha256:
            return False
        offered = self._offered_as(wish, f"sha256:{file.sha256}")
        if offered and offered.label == file.label:
            return True
        if file.name != name:
            return False
        if folder := wish.folder or (LORAS if wish.only_lora else None):
            return file.folder == folder
        folders = {kind.folder for kind in self._facts.types.kinds.values()}
        return file.folder in folders and not _ONE_OF_SEVERAL.search(name)

    def _remember(self, file: ModelFile, wish: ModelRef) -> None:
        """Keep all but a plain address, which may hold a token: the next start is given it again."""
        source = {} if wish.source["kind"] == "https" else dict(file.source)
        row = {"folder": file.folder, "name": file.name, "size": file.size, "sha256": file.sha256}
        self._resolver.pins.put(WISHES, wish.key, {**row, "source": source})


def remarks(file: ModelFile) -> list[str]:
    """Return what else is to be said about a file that was wished for."""
    said = list(file.remarks)
    if is_pickle(file.name):
        said.append(
            "it is a pickle, which can run code when it is loaded; it is taken because its sha256 was given"
        )
    if filenames.suffix(file.name) in filenames.UNLISTED:
        said.append("ComfyUI itself does not list files of this kind; a custom node has to")
    return said


def _origin(source: Mapping[str, Any]) -> str:
    """Name a source whose hash is not known, so that it can be compared at all."""
    return " ".join(str(source.get(key)) for key in ("kind", "repo", "path", "version", "url"))
