"""What a word led to, kept beside the files: so that the next start serves the same, and needs no hub.

A record is written last, when all files are there and were hashed: it is the mark that they are complete. It
holds where each file lies, its size and its time of change; a file that is changed later is found out by
these, and hashed again. Who can write the volume can forge it: pod.resolve.remembered.
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pod.util import bounded_json, untrusted_files
from pod.util.files import write_json
from server.collection.reference import told
from server.detection.decision import Base, Decision, Memory
from server.detection.facts import File
from server.settings import OLDER
from server.weights.model_files import Part, Piece, Resolved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.settings import Settings

SCHEMA: Final = 1
_LARGEST: Final = 4 << 20  # bytes
_TEXTS: Final = (
    "kind",
    "family",
    "checkpoint",
    "task",
    "pipeline",
    "component",
    "subfolder",
    "layout",
    "variant",
    "reason",
)


def path_of(root: Path, role: str, word: str, revision: str = "", base_model: str = "") -> Path:
    """Return where the record of a word lies below `root`, the folder of diffusers' models."""
    key = json.dumps([role, word, revision, base_model])
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", told(word)).strip("-.")[-80:]
    return root / "locks" / f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def write(path: Path, found: Resolved, knowledge: str) -> None:
    """Write a record. Raises OSError.

    Args:
        path: Where.
        found: What the word led to.
        knowledge: A mark of what detection knew when it decided.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"model": found.model, "base": found.base}
    write_json(
        path,
        {
            "schema": SCHEMA,
            "word": found.word,
            "knowledge": knowledge,
            "decision": found.decision.to_json(),
            "parts": {name: _part_to_json(part) for name, part in parts.items() if part},
        },
    )


def _part_to_json(part: Part) -> dict[str, Any]:
    rows = []
    for piece in part.pieces:
        status = piece.at.stat()
        rows.append(
            {
                "path": piece.path,
                "at": str(piece.at),
                "size": status.st_size,
                "mtime_ns": status.st_mtime_ns,
                "digest": piece.digest,
            }
        )
    # An address may hold a token.
    source = {key: value for key, value in part.source.items() if key != "url"}
    return {"source": source, "revision": part.revision, "files": rows}


class Record:
    """A record that was read.

    Raises KeyError, TypeError, ValueError, AttributeError where it is of another shape.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        if data["schema"] != SCHEMA:
            raise ValueError("another schema")
        self.word = str(data["word"])
        self.knowledge = str(data["knowledge"])
        self.decision = decision_of(data["decision"])
        self._parts: Mapping[str, Any] = data["parts"]
        self.revision = str(self._parts["model"]["revision"])
        for part in self._parts.values():
            if not (part["files"] and isinstance(part["source"]["kind"], str)):
                raise ValueError("a part of nothing, or from nowhere")
            for row in part["files"]:
                _check_file(row)

    def changed(self) -> str:
        """Return the first file that is not there as it was recorded; "" where all are."""
        for row in (row for part in self._parts.values() for row in part["files"]):
            try:
                status = Path(row["at"]).stat()
            except OSError:
                return str(row["path"])
            plain = stat.S_ISREG(status.st_mode)  # whoever opened a FIFO would wait for ever
            if not plain or (status.st_size, status.st_mtime_ns) != (row["size"], row["mtime_ns"]):
                return str(row["path"])
        return ""

    def digests(self) -> dict[tuple[str, str], str]:
        """Return what its files were found to have, by part and path."""
        return {
            (name, row["path"]): row["digest"] for name, part in self._parts.items() for row in part["files"]
        }

    def resolved(self, folders: Mapping[str, Path]) -> Resolved:
        """Return what it tells, with the folders in which links to the files are."""
        parts = {name: _part(row, folders[name]) for name, row in self._parts.items()}
        return Resolved(self.word, self.decision, parts["model"], parts.get("base"))


def read(path: Path, word: str) -> Record | None:
    """Return the record of a word; None where there is none that can be used."""
    try:
        found = Record(bounded_json.parse(untrusted_files.read_plain(path, _LARGEST)))
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return found if found.word == word else None


def _check_file(row: Mapping[str, Any]) -> None:
    """Raises KeyError, TypeError, ValueError for what is no file as it is written here."""
    path, at = PurePosixPath(row["path"]), PurePosixPath(row["at"])
    if path.is_absolute() or ".." in path.parts or not path.parts or not at.is_absolute():
        raise ValueError("a path that leads elsewhere")
    if "\0" in f"{path}{at}" or not isinstance(row["digest"], str):
        raise ValueError("no path, or no digest")
    if not (isinstance(row["size"], int) and isinstance(row["mtime_ns"], int)):
        raise TypeError("no size, or no time")


def _part(row: Mapping[str, Any], folder: Path) -> Part:
    pieces = tuple(Piece(each["path"], Path(each["at"]), each["digest"]) for each in row["files"])
    return Part(row["source"], row["revision"], pieces, folder)


def decision_of(row: Mapping[str, Any]) -> Decision:
    """Return the decision whose `to_json` this is. Raises KeyError, TypeError, ValueError, AttributeError."""
    plain = {key: value for key, value in row.items() if key not in {"served", "refusal"}}
    if not all(isinstance(row[key], str) for key in _TEXTS):
        raise TypeError("no text")
    if not all(isinstance(each[key], int) for each in row["memory"] for key in ("vram", "ram")):
        raise TypeError("no number")
    return Decision(
        **{
            **plain,
            "tasks": tuple((str(task), str(name)) for task, name in row["tasks"].items()),
            "files": tuple(File(each["path"], each["size"]) for each in row["files"]),
            "base_files": tuple(File(each["path"], each["size"]) for each in row["base_files"]),
            "base": Base(**row["base"]) if row["base"] else None,
            "memory": tuple(_memory(each) for each in row["memory"]),
            **{key: tuple(row[key]) for key in ("omit", "missing", "needs", "evidence")},
        }
    )


def _memory(row: Mapping[str, Any]) -> Memory:
    return Memory(**{**row, "mode": OLDER.get(row["mode"], row["mode"])})


def lora_key(word: str, family: str) -> tuple[str, str, str, str]:
    """Return what the record of a LoRA is found by: it was looked at for models of one family."""
    return "lora", word, "", family


def key_of(settings: Settings) -> tuple[str, str, str, str]:
    """Return what the record of the model itself is found by: role, word, revision, base."""
    return "model", settings.model, settings.revision, settings.base_model
