"""What the image's lock says of the model that is served: model-lock.json, made of a variant's `model`.

It has the variables that name the model, and for each word what it led to when it was locked: the decision,
the commits, and the size and sha256 of each file. A pod asks no hub what such a word means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pod.util import files
from server.collection import reference
from server.detection.facts import File
from server.settings import IMAGE_LOCK
from server.weights import record
from server.weights.places import COMMIT, SHA256
from server.weights.resolve import Plan, Wanted

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from server.weights.record import Record

_REPOSITORY: Final = re.compile(reference.NAME, re.ASCII)


class ImageLock:
    """The words that are locked, by the keys of their records; `lacking` are part and word of the others."""

    def __init__(
        self, plans: Mapping[tuple[str, ...], Plan], lacking: frozenset[tuple[str, ...]] = frozenset()
    ) -> None:
        self._plans, self._lacking = plans, lacking

    @classmethod
    def read(cls, root: Path) -> ImageLock:
        """Read that of the image, whose data lie in `root`; most have none. Raises PodError."""
        path = root / IMAGE_LOCK
        return files.read_image_data(path, cls._of) if path.exists() else cls({})

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> ImageLock:
        rows = {(str(row["key"][0]), str(row["key"][1]), *row["key"][2:]): row for row in data["words"]}
        return cls(
            {key: _plan(key[1], row["found"]) for key, row in rows.items() if row["found"]},
            frozenset(key[:2] for key, row in rows.items() if not row["found"]),
        )

    def __bool__(self) -> bool:
        """Whether anything is locked."""
        return bool(self._plans)

    def plan(self, key: tuple[str, ...]) -> Plan | None:
        """Return what a word led to when it was locked; None where it was not."""
        return self._plans.get(key)

    def lacks(self, key: tuple[str, ...]) -> bool:
        """Tell whether a word was to be locked, and could not be."""
        return key[:2] in self._lacking


def agrees(known: Record, plan: Plan) -> bool:
    """Tell whether a record is of just the files that are locked, and of the same decision."""
    locked = {
        (name, path): f"sha256:{sha256}"
        for name, part in plan.parts.items()
        for path, sha256 in part.locked.items()
    }
    return known.digests() == locked and known.decision == plan.decision


def _plan(word: str, found: Mapping[str, Any]) -> Plan:
    of_word = reference.split_hash(word)[1]
    if "model" not in found["parts"]:
        raise ValueError("a word that led to nothing")
    parts = {name: _wanted(part, of_word if name == "model" else "") for name, part in found["parts"].items()}
    return Plan(word, record.decision_of(found["decision"]), parts)


def _wanted(part: Mapping[str, Any], sha256: str) -> Wanted:
    """Read a part. Raises ValueError, KeyError, TypeError for one that pins nothing."""
    source, revision = part["source"], part["revision"]
    pinned = source["kind"] != "huggingface" or (
        source["revision"] == revision
        and COMMIT.fullmatch(revision)
        and _REPOSITORY.fullmatch(source["repo"])
    )
    if not (part["files"] and pinned and all(SHA256.fullmatch(each["sha256"]) for each in part["files"])):
        raise ValueError("a part without a commit, files or hashes")
    return Wanted(
        source,
        revision,
        tuple(File(each["path"], each["size"]) for each in part["files"]),
        sha256=sha256,
        locked={each["path"]: each["sha256"] for each in part["files"]},
    )
