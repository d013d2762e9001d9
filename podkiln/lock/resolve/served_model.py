"""The model that an image serves: what its words lead to, decided by the code that decides in a pod.

The hubs are asked for facts by server.collection, and for hashes as they are for weights.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from pydantic import ValidationError

from pod.errors import PodError
from pod.net import http as pod_http
from pod.net.hubs import Hubs, request_for
from pod.net.transfer_policy import TransferPolicy
from pod.resolve.civitai import Terms
from pod.resolve.hub_client import HubClient
from pod.util.env import SettingError
from podkiln.config import families, model_types
from podkiln.errors import UsageError
from podkiln.lock import family_bases, served_model, validation
from podkiln.lock.resolve import http
from podkiln.lock.resolve.civitai import Civitai
from podkiln.lock.resolve.errors import AccessDeniedError, RefusedError, UnclearError, UnreachableError
from podkiln.lock.resolve.http import Web
from podkiln.lock.resolve.huggingface import HuggingFace, is_offline
from podkiln.lock.resolve.weights import ResolveResult
from podkiln.lock.served_model import LockedFound, LockedPart, LockedPiece, LockedWord, ModelLock
from server.collection.collect import Collector
from server.detection.knowledge import Knowledge
from server.weights import record
from server.weights.places import Places
from server.weights.resolve import UnsuitableError, WordResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from podkiln.config.variant import LoadedVariant
    from server.detection.facts import File
    from server.settings import Settings
    from server.weights.resolve import Plan, Wanted

    Key = tuple[str, ...]

log = logging.getLogger(__name__)


def relock(described: LoadedVariant, *, upgrade: bool) -> ResolveResult:
    """Write the lock of a variant's model where one does not fit, and say what is not resolved.

    `upgrade`: everything is asked for again. Raises LockError for a lock damaged or too large, UsageError.
    """
    outcome = ResolveResult()
    path, model = served_model.path_of(described), described.spec.model
    before = served_model.at(path)
    if model is None:
        if before:
            path.unlink()
            outcome.changed.append(path)
        return outcome
    words = _Words(described, outcome, served_model.known(before), upgrade=upgrade)
    made = ModelLock(
        variables=model.variables(), diffusers=families.DIFFUSERS, words=tuple(words.of(model.settings()))
    )
    outcome.models[served_model.name_of(described)] = made.files
    if outcome.problems:
        return outcome  # what a person has to correct is no lock; one that is there stays
    if validation.write(path, made):
        outcome.changed.append(path)
    return outcome


class _Words:
    """Looks up the words of one variant's model."""

    def __init__(
        self,
        described: LoadedVariant,
        outcome: ResolveResult,
        known: Mapping[Key, LockedFound],
        *,
        upgrade: bool,
    ) -> None:
        self._described, self._outcome, self._known, self._upgrade = described, outcome, known, upgrade

    def of(self, settings: Settings) -> Iterator[LockedWord]:
        """Yield what is locked of each word."""
        model = self._one(record.key_of(settings), lambda hubs: hubs.words.model(settings))
        yield model
        decision = served_model.decision(model)
        for key in islice(served_model.keys(settings, model), 1, None):
            role, word = key[:2]
            if role != "lora":
                yield self._one(key, lambda hubs: hubs.words.component(role, word))  # noqa: B023 - called at once
            elif decision is None:
                self._open(key, "the model that it is for is not resolved")
                yield LockedWord(key=key, found=None)
            else:
                yield self._one(key, lambda hubs: hubs.words.lora(word, decision.family))  # noqa: B023 - the same

    @cached_property
    def _hubs(self) -> _Asking:
        return _Asking()

    def _one(self, key: Key, ask: Callable[[_Asking], Plan]) -> LockedWord:
        known = self._known.get(key)
        if known and not self._upgrade:
            return LockedWord(key=key, found=known)
        try:
            plan = ask(self._hubs)
            found = LockedFound(
                decision=json.loads(json.dumps(plan.decision.to_json())),  # tuples become lists
                parts={name: self._hubs.part(wanted) for name, wanted in plan.parts.items()},
            )
        except (SettingError, UnsuitableError, RefusedError) as wrong:
            text = f"{str(wrong).rstrip('.')}."
            self._outcome.problems.append(str(self._described.error(("model",), text)))
            self._note(key, text)
            return LockedWord(key=key, found=known)
        except ValidationError as odd:
            first = odd.errors(include_url=False)[0]
            self._open(key, f"its hub tells what no lock can hold: {'.'.join(map(str, first['loc']))}")
        except (PodError, pod_http.RefusedError, UnreachableError, UnclearError, AccessDeniedError) as failed:
            self._open(key, re.sub(rf"^[A-Z_]+: {re.escape(key[1])} ", "it ", str(failed)))
        else:
            return LockedWord(key=key, found=found)
        return LockedWord(key=key, found=known)

    def _open(self, key: Key, why: str) -> None:
        """Note why a word is not resolved, or is kept as it was."""
        name, why = served_model.name_of(self._described), f"{why.rstrip('.')}."
        self._note(key, why)
        stays = "stays as it was locked" if key in self._known else "stays unresolved"
        self._outcome.warnings.append(f"{name}: {key[1]} {stays}: {why}")

    def _note(self, key: Key, why: str) -> None:
        self._outcome.reasons[served_model.name_of(self._described), served_model.name_of_word(key)] = why


class _Asking:
    """The hubs that are asked. Raises UsageError when an address or a token of theirs is malformed."""

    def __init__(self) -> None:
        try:
            self._hubs = Hubs.from_environment(os.environ)
        except PodError as malformed:
            raise UsageError(str(malformed)) from None
        patience = http.PATIENCE
        policy = TransferPolicy(
            tries=patience.tries,
            backoff=patience.first,
            backoff_limit=patience.longest,
            wait_limit=patience.total,
            limits=http.limits(),
        )
        known = Knowledge(family_bases.knowledge(family_bases.pinned()))
        self._web = Web()
        self._huggingface = HuggingFace(self._hubs, self._web)
        self._civitai = Civitai(self._hubs, self._web)
        self._asker = HubClient(policy, threading.Event())
        nowhere = Places(Path(os.devnull), Path(os.devnull))
        terms = Terms.from_json(model_types.to_json()["civitai"])
        collector = Collector(self._hubs, self._asker, known, terms, log.info)
        self._words = WordResolver(collector, nowhere, known, log.info)

    @property
    def words(self) -> WordResolver:
        """What tells what a word leads to. Raises UnreachableError where nobody is to be asked."""
        if is_offline():
            raise UnreachableError(self._huggingface.host, "HF_HUB_OFFLINE is set")
        return self._words

    def part(self, wanted: Wanted) -> LockedPart:
        """Return files with their sizes and hashes.

        Raises UnreachableError, UnclearError, AccessDeniedError, RefusedError, and the pod's RefusedError.
        """
        source = {key: value for key, value in wanted.source.items() if key not in {"path", "choice"}}
        return LockedPart(
            source=source,
            revision=wanted.revision,
            licence=wanted.licence or None,
            gated=wanted.gated,
            files=tuple(self._piece(wanted, file) for file in wanted.files),
        )

    def _piece(self, wanted: Wanted, file: File) -> LockedPiece:
        match wanted.source["kind"]:
            case "huggingface":
                found = self._huggingface.file(wanted.source["repo"], file.path, wanted.revision)
                size, sha256 = found.size, found.sha256
            case "civitai":
                size, sha256 = self._of_civitai(wanted.source)
            case _:
                size, sha256 = self._web.size(wanted.source["url"]).size, wanted.sha256
        pinned = wanted.locked.get(file.path, sha256)
        if sha256 != pinned:
            raise RefusedError(
                f"{file.path} has the sha256 {sha256} there, and {pinned} is locked of that base"
            )
        if wanted.sha256 and sha256 != wanted.sha256:
            raise RefusedError(f"{file.path} has the sha256 {sha256} there, and {wanted.sha256} is described")
        if not (size and sha256):
            raise UnclearError(f"no {'sha256' if size else 'size'} of {file.path} is told")
        return LockedPiece(path=file.path, size=size, sha256=sha256)

    def _of_civitai(self, source: Mapping[str, Any]) -> tuple[int | None, str | None]:
        """Return what the site says of a file; of its size, rounded there, what the download says."""
        chosen = parse_qs(source.get("query", "")).get("fileId")
        found = self._civitai.file(source["version"], int(chosen[0]) if chosen else None)
        for sentence in found.remarks:
            log.info("%s", sentence)
        size = self._asker.size(request_for(source, self._hubs), log.info, http.PATIENCE.tries)
        return size, found.sha256
