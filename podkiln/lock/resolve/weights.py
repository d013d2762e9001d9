"""The weights' lock: trusted facts as described, and what the hubs say of all others. No guesses."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pod.errors import PodError
from pod.net.hubs import Hubs
from podkiln.config.model import UNRESOLVED
from podkiln.errors import SourceError
from podkiln.lock import schema
from podkiln.lock.resolve.civitai import Civitai
from podkiln.lock.resolve.errors import (
    AccessDeniedError,
    FileMetadata,
    RefusedError,
    UnclearError,
    UnreachableError,
)
from podkiln.lock.resolve.http import Web
from podkiln.lock.resolve.huggingface import HuggingFace
from podkiln.lock.schema import LockedFile, WeightsLock
from podkiln.lock.validation import UnreadableLockError
from podkiln.util import atomic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from podkiln.config.catalog import Entry
    from podkiln.config.model import ModelFile

_CHUNK = 1 << 20


@dataclass
class ResolveResult:
    """The result: `warnings` say why files stay unresolved, `problems` what a person must correct.

    `reasons` is why a file was not resolved that was asked for, by model and destination.
    """

    changed: list[Path] = field(default_factory=list)
    models: dict[str, tuple[LockedFile, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reasons: dict[tuple[str, str], str] = field(default_factory=dict)

    def count(self, *, resolved: bool) -> int:
        """Count the files that are resolved, or those that are not."""
        return sum(file.resolved is resolved for files in self.models.values() for file in files)


@dataclass(frozen=True)
class LookupRequest:
    """A file of a model, what is known of it, and who could be asked."""

    entry: Entry
    number: int
    file: ModelFile
    known: LockedFile

    @property
    def asked(self) -> tuple[str, str]:
        """What one listing answers: files of one repository and revision share it."""
        if self.file.huggingface:
            return self.file.huggingface, self.file.revision or "main"
        return schema.source_name(self.file), ""

    @property
    def key(self) -> tuple[str, str]:
        """The model and the file."""
        return self.entry.id, self.file.destination

    @property
    def name(self) -> str:
        """The model and the file, for messages."""
        return f"{self.entry.id}: {self.file.destination}"


class Sources:
    """The hubs that can be asked. Raises SourceError when an address or a token of theirs is malformed."""

    def __init__(self) -> None:
        try:
            hubs = Hubs.from_environment(os.environ)
        except PodError as malformed:
            raise SourceError(f"{malformed}.") from None
        self._web = Web()
        self._huggingface = HuggingFace(hubs, self._web)
        self._civitai = Civitai(hubs, self._web)

    def find(self, question: LookupRequest) -> FileMetadata:
        """Ask for one file. Raises UnreachableError, UnclearError, AccessDeniedError, RefusedError."""
        file = question.file
        if file.huggingface:
            return self._huggingface.find(file)
        if file.civitai:
            return self._civitai.find(file)
        if file.url:
            return self._web.size(file.url)
        return _local(question.entry.source.path.parent / str(file.local))


def relock(
    path: Path, entries: Mapping[str, Entry], upgrade: Collection[str], *, start: Path
) -> ResolveResult:
    """Resolve the files of models and write their lock.

    Args:
        path: The lock to write.
        entries: The models, by id.
        upgrade: Ids of models that are asked for again although they are resolved; `all` for every one.
        start: The lock whose findings are kept: `path` itself, or the shipped one for a user's first.

    Raises LockError for a lock that cannot be read, unless everything that it may have held is found again.
    """
    known, damage = _known(start)
    if damage and (start.is_dir() or not start.parent.is_dir()):
        raise damage  # nothing can be written in its place
    outcome = resolve(entries, known, {"all"} if damage else upgrade)
    if damage:
        _refuse_loss(damage, entries, outcome)
    if path != start and not path.exists() and outcome.models == _shared(known, outcome.models):
        return outcome  # a user's own would say nothing new
    if atomic.write_json(path, WeightsLock(models=outcome.models).model_dump()):
        outcome.changed.append(path)
    return outcome


def _known(path: Path) -> tuple[WeightsLock, UnreadableLockError | None]:
    """Return what is locked, and why it could not be read. Raises UnreadableLockError for a newer lock."""
    try:
        return schema.read_weights(path), None
    except UnreadableLockError as damage:
        if damage.newer:
            raise
        return WeightsLock(models={}), damage


def _refuse_loss(damage: UnreadableLockError, entries: Mapping[str, Entry], outcome: ResolveResult) -> None:
    """Refuse to overwrite a damaged lock that may hold unique facts. Raises UnreadableLockError."""
    lacking = [
        (name, file.destination)
        for name, files in outcome.models.items()
        for file, described in zip(files, entries[name].model.files, strict=True)
        if not file.resolved or (described.huggingface and not file.revision)
    ]
    said = str(damage).rstrip(".")
    if lacking:
        first = lacking[0]
        why = outcome.reasons.get(first, "not everything is known of it")
        raise UnreadableLockError(
            f"{said}; it was left as it is, since {len(lacking)} of its files could not be found again, "
            f"the first of them {first[0]}: {first[1]}: {why.rstrip('.')}.",
            hint=str(damage.hint),
        )
    outcome.warnings.append(
        f"{said}; everything that it may have held was found again: compare before you commit."
    )


def resolve(entries: Mapping[str, Entry], known: WeightsLock, upgrade: Collection[str]) -> ResolveResult:
    """Ask for what is unresolved or to be upgraded; files in the listings got that way are checked too."""
    sources, outcome = Sources(), ResolveResult()
    questions = {name: _questions(entry, known) for name, entry in sorted(entries.items())}
    renewed = {name for name in entries if name in upgrade or "all" in upgrade}
    open_ones = [
        each
        for name, group in questions.items()
        for each in group
        if name in renewed or not each.known.resolved
    ]
    asked = {each.asked for each in open_ones}
    silent: Counter[tuple[str, str]] = Counter()
    for name, group in questions.items():
        files = []
        for each in group:
            needed = name in renewed or not each.known.resolved
            # A trusted file in a listing that came anyway is compared; one with a commit keeps that.
            checked = each.known.revision is None and each.asked in asked
            try:
                files.append(_answer(each, sources, outcome) if needed or checked else each.known)
            except UnreachableError as mute:
                files.append(each.known)
                silent[mute.host, mute.why] += needed
                outcome.reasons[each.key] = f"{mute}."
        outcome.models[name] = tuple(files)
    for (host, why), count in (+silent).items():
        what = "1 file stays as it was" if count == 1 else f"{count} files stay as they were"
        outcome.warnings.append(f"{what}: {host} could not be asked ({why}).")
    return outcome


def _questions(entry: Entry, known: WeightsLock) -> list[LookupRequest]:
    found = {file.destination: file for file in known.models.get(entry.id, ())}
    return [
        LookupRequest(entry, number, file, schema.merged(file, found.get(file.destination)))
        for number, file in enumerate(entry.model.files)
    ]


def _answer(question: LookupRequest, sources: Sources, outcome: ResolveResult) -> LockedFile:
    """Return a file with the facts of its source, or those known already. Raises UnreachableError."""
    key = question.key
    try:
        found = sources.find(question)
    except (AccessDeniedError, UnclearError) as withheld:
        outcome.reasons[key] = f"{withheld}."
        outcome.warnings.append(f"{question.name}: {withheld}.")
    except RefusedError as refused:
        outcome.reasons[key] = f"{refused}."
        outcome.problems.append(str(question.entry.error(("files", question.number), f"{refused}.")))
    else:
        outcome.warnings += [f"{question.name} {remark}." for remark in found.remarks]
        contradictions = list(_contradictions(question, found))
        outcome.problems += contradictions
        if not contradictions:
            return _filled(question, found, outcome)
        outcome.reasons[key] = contradictions[0]
    return question.known


def _contradictions(question: LookupRequest, found: FileMetadata) -> Iterable[str]:
    """Report where a trusted hash differs from the one found; neither is changed."""
    described = schema.from_description(question.file)
    for key in ("sha256", "size"):
        trusted, there = getattr(described, key), getattr(found, key)
        if trusted is not None and there is not None and trusted != there:
            at = f" at {found.revision}" if found.revision else ""
            trust = f"{trusted} is trusted here ({question.file.confidence})"
            what = f"{trust}, but {described.source}{at} has {there}."
            yield str(question.entry.error(("files", question.number, key), what))


def _filled(question: LookupRequest, found: FileMetadata, outcome: ResolveResult) -> LockedFile:
    """Put what was found in the place of what is known; values that the source does not give are kept."""
    known = question.known
    if known.sha256 is not None and found.sha256 is None and question.file.sha256 == UNRESOLVED:
        told = f"{schema.source_name(question.file)} gives no sha256 any more: the locked one was kept."
        outcome.warnings.append(f"{question.name}: {told}")
        return known
    answer = schema.from_description(question.file).model_copy(
        update={"revision": found.revision, "size": found.size, "sha256": found.sha256}
    )
    filled = schema.merged(question.file, answer)
    if filled.sha256 == known.sha256 and filled.sha256 is not None:
        missing = {key: getattr(known, key) for key in ("size", "revision") if getattr(filled, key) is None}
        filled = filled.model_copy(update=missing)
    if not filled.resolved:
        lacks = [key for key in ("sha256", "size") if getattr(filled, key) is None]
        told = f"{schema.source_name(question.file)} gives no {' and no '.join(lacks)}."
        outcome.reasons[question.key] = told
        outcome.warnings.append(f"{question.name}: {told}")
    return LockedFile.model_validate(filled.model_dump())


def _local(path: Path) -> FileMetadata:
    """Hash a file on this machine."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as unreadable:
        raise RefusedError(f"the local file {path} cannot be read: {unreadable.strerror}") from None
    return FileMetadata(revision=None, size=size, sha256=digest.hexdigest())


def _shared(known: WeightsLock, models: Iterable[str]) -> dict[str, tuple[LockedFile, ...]]:
    return {name: known.models[name] for name in models if name in known.models}
