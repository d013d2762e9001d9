"""The weights' lock: trusted facts as described, and what the hubs say of all others. Never a guess."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podkiln import lock
from podkiln.errors import LockError
from podkiln.lock import LockedFile, WeightsLock
from podkiln.resolve import aside, web
from podkiln.resolve.answer import Found, RefusedError, UnreachableError, WithheldError
from podkiln.resolve.civitai import Civitai
from podkiln.resolve.hub import HuggingFace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from podkiln.catalogue import Entry
    from podkiln.model import ModelFile

_CHUNK = 1 << 20


@dataclass
class Outcome:
    """What came of it: warnings leave files unresolved, problems want a description corrected."""

    changed: list[Path] = field(default_factory=list)
    models: dict[str, tuple[LockedFile, ...]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def count(self, *, resolved: bool) -> int:
        """Count the files that are resolved, or those that are not."""
        return sum(file.resolved is resolved for files in self.models.values() for file in files)


@dataclass(frozen=True)
class Question:
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
        return lock.source_name(self.file), ""

    @property
    def name(self) -> str:
        """The model and the file, for messages."""
        return f"{self.entry.id}: {self.file.destination}"


class Sources:
    """Everybody who can be asked; whoever does not answer once is not asked again in this run."""

    def __init__(self) -> None:
        self.huggingface = HuggingFace()
        self.civitai = Civitai()
        self._silent: dict[str, str] = {}

    def find(self, question: Question) -> Found:
        """Ask for one file. Raises UnreachableError, WithheldError, RefusedError."""
        host = self._host(question.file)
        if host in self._silent:
            raise UnreachableError(host, self._silent[host])
        try:
            return self._ask(question)
        except UnreachableError as silent:
            self._silent[host] = silent.why
            raise UnreachableError(host, silent.why) from None

    def _host(self, file: ModelFile) -> str:
        if file.huggingface:
            return self.huggingface.host
        return self.civitai.host if file.civitai else urlsplit(file.url or "").netloc

    def _ask(self, question: Question) -> Found:
        file = question.file
        if file.huggingface:
            return self.huggingface.find(file)
        if file.civitai:
            return self.civitai.find(file)
        if file.url:
            return web.find(file.url)
        return _local(question.entry.source.path.parent / str(file.local))


def relock(path: Path, entries: Mapping[str, Entry], upgrade: Collection[str], *, start: Path) -> Outcome:
    """Resolve the files of models and write their lock.

    Args:
        path: The lock to write.
        entries: The models, by id.
        upgrade: Ids of models that are asked for again although they are resolved; `all` for every one.
        start: The lock whose findings are kept: `path` itself, or the shipped one for a user's first.
    """
    outcome = resolve(entries, _known(start), upgrade)
    if path != start and not path.exists() and outcome.models == _shared(start, outcome.models):
        return outcome  # a user's own would say nothing new
    if aside.write_json(path, WeightsLock(models=outcome.models).model_dump()):
        outcome.changed.append(path)
    return outcome


def resolve(entries: Mapping[str, Entry], known: WeightsLock, upgrade: Collection[str]) -> Outcome:
    """Ask for what is unresolved or to be upgraded; files in the listings got that way are checked too."""
    sources, outcome = Sources(), Outcome()
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
        outcome.models[name] = tuple(files)
    for (host, why), count in (+silent).items():
        what = "1 file stays as it was" if count == 1 else f"{count} files stay as they were"
        outcome.warnings.append(f"{what}: {host} could not be asked ({why}).")
    return outcome


def _questions(entry: Entry, known: WeightsLock) -> list[Question]:
    found = {file.destination: file for file in known.models.get(entry.id, ())}
    return [
        Question(entry, number, file, lock.merged(file, found.get(file.destination)))
        for number, file in enumerate(entry.model.files)
    ]


def _answer(question: Question, sources: Sources, outcome: Outcome) -> LockedFile:
    """Return a file with what its source says of it, or what is known already. Raises UnreachableError."""
    try:
        found = sources.find(question)
    except WithheldError as withheld:
        outcome.warnings.append(f"{question.name}: {withheld}.")
    except RefusedError as refused:
        outcome.problems.append(str(question.entry.error(("files", question.number), f"{refused}.")))
    else:
        outcome.warnings += [f"{question.name} {remark}." for remark in found.remarks]
        contradictions = list(_contradictions(question, found))
        outcome.problems += contradictions
        if not contradictions:
            return _filled(question.file, found)
    return question.known


def _contradictions(question: Question, found: Found) -> Iterable[str]:
    """Compare what is trusted with what was found: neither is put right by the other."""
    described = lock.as_described(question.file)
    for key in ("sha256", "size"):
        trusted, there = getattr(described, key), getattr(found, key)
        if trusted is not None and there is not None and trusted != there:
            at = f" at {found.revision}" if found.revision else ""
            trust = f"{trusted} is trusted here ({question.file.confidence})"
            what = f"{trust}, but {described.source}{at} has {there}."
            yield str(question.entry.error(("files", question.number, key), what))


def _filled(file: ModelFile, found: Found) -> LockedFile:
    described = lock.as_described(file)
    answer = described.model_copy(
        update={"revision": found.revision, "size": found.size, "sha256": found.sha256}
    )
    return lock.merged(file, answer)


def _local(path: Path) -> Found:
    """Hash a file on this machine."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as unreadable:
        raise RefusedError(f"the local file {path} cannot be read: {unreadable.strerror}") from None
    return Found(revision=None, size=size, sha256=digest.hexdigest())


def _known(path: Path) -> WeightsLock:
    try:
        return lock.read_weights(path)
    except LockError:
        return WeightsLock(models={})  # damaged: it is made anew


def _shared(path: Path, models: Iterable[str]) -> dict[str, tuple[LockedFile, ...]]:
    known = _known(path).models
    return {name: known[name] for name in models if name in known}
