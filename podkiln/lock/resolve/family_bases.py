"""The bases of families, asked of Hugging Face: commit, licence, and the hashes of their small files."""

from __future__ import annotations

import os
from collections import Counter

from pod.errors import PodError
from pod.net.hubs import Hubs
from podkiln.errors import UsageError
from podkiln.lock import family_bases, validation
from podkiln.lock.family_bases import BasesLock
from podkiln.lock.resolve.errors import AccessDeniedError, RefusedError, UnclearError, UnreachableError
from podkiln.lock.resolve.http import Web
from podkiln.lock.resolve.huggingface import HuggingFace
from podkiln.lock.resolve.weights import ResolveResult
from podkiln.lock.served_model import LockedPart, LockedPiece
from server.collection import card
from server.detection.facts import Facts, File
from server.detection.pipeline_folder import INDEX
from server.weights.resolve import configuration


def relock(*, upgrade: bool) -> ResolveResult:
    """Write the lock of the bases: those that are not known, or with `upgrade` all, are asked for.

    Raises LockError for a damaged lock, UsageError.
    """
    outcome, known = ResolveResult(), family_bases.read().bases
    silent: Counter[tuple[str, str]] = Counter()
    made: dict[str, LockedPart | None] = {}
    hub = _hub()
    for name in family_bases.described():
        made[name] = known.get(name)
        if made[name] and not upgrade:
            continue
        try:
            made[name] = _base(hub, name)
        except UnreachableError as mute:
            silent[mute.host, mute.why] += 1
        except (AccessDeniedError, UnclearError) as withheld:
            stays = "stays as it was locked" if made[name] else "stays unlocked"
            outcome.warnings.append(f"the base {name} {stays}: {withheld}.")
        except RefusedError as refused:
            outcome.problems.append(f"{family_bases.named_by(name)}: the base {name}: {refused}.")
    for (host, why), count in silent.items():
        what = "1 base of a family stays" if count == 1 else f"{count} bases of families stay"
        outcome.warnings.append(f"{what} as before: {host} could not be asked ({why}).")
    if validation.write(family_bases.path(), BasesLock(bases=made)):
        outcome.changed.append(family_bases.path())
    return outcome


def _hub() -> HuggingFace:
    try:
        return HuggingFace(Hubs.from_environment(os.environ), Web())
    except PodError as malformed:
        raise UsageError(str(malformed)) from None


def _base(hub: HuggingFace, name: str) -> LockedPart:
    """Ask for one. Raises UnreachableError, UnclearError, AccessDeniedError, RefusedError."""
    found = hub.repository(name)
    wanted = configuration(Facts(name, tuple(File(each) for each in found.names)))
    if not any(file.path == INDEX for file in wanted):
        raise UnclearError(f"it has no {INDEX} at {found.commit}, which every pipeline has")
    pieces = []
    for file in wanted:
        told = hub.file(name, file.path, found.commit)
        if not (told.size and told.sha256):
            raise UnclearError(f"no size and sha256 of {file.path} are told")
        pieces.append(LockedPiece(path=file.path, size=told.size, sha256=told.sha256))
    return LockedPart(
        source={"kind": "huggingface", "repo": name, "revision": found.commit},
        revision=found.commit,
        licence=card.of_data(found.card).licence or None,
        gated=found.gated,
        files=tuple(pieces),
    )
