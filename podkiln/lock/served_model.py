"""The lock of the model that an image serves (`model` of a variant), and whether it still fits.

`model.json` beside the file of one's own variant, or `models/VARIANT.json` with the shipped locks. For each
word of the description it has what that led to: the decision, and of each file its repository at a commit,
its size and its sha256. A word that could not be locked has null there, and a pod asks then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from podkiln.config import families
from podkiln.config.document import TupleOf
from podkiln.config.fields import Revision, SafePath
from podkiln.config.messages import PatternType
from podkiln.config.model import RepoId
from podkiln.lock import locations, validation
from podkiln.lock.schema import LockedFile
from podkiln.lock.validation import Locked, Schema, Sha256, Size, Text
from server.weights import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant
    from server.detection.decision import Decision
    from server.settings import Settings

UPGRADE_NAME: Final = "model"
"""What --upgrade calls it."""
_Plain = Annotated[str, Field(max_length=4096)]
_Number = Annotated[int, Field(gt=0, lt=1 << 53)]
T = TypeVar("T")


def _unique(found: T, names: Sequence[str]) -> T:
    """Return something whose names stand there once each. Raises ValueError."""
    if len(set(names)) != len(names):
        raise ValueError("a file is duplicated")
    return found


class _Repository(Locked):
    kind: Literal["huggingface"]
    repo: RepoId
    revision: Revision


class _Version(Locked):
    kind: Literal["civitai"]
    version: _Number
    model: _Number | None = None
    file: _Number | None = None
    query: _Plain = ""


class _Address(Locked):
    kind: Literal["https"]
    url: Annotated[str, PatternType(r"^https?://[!-~]{1,4000}$", "an address")]


_SOURCES: Final[dict[str, type[Locked]]] = {
    "huggingface": _Repository,
    "civitai": _Version,
    "https": _Address,
}


class LockedPiece(Locked):
    """One file: its path in its repository."""

    path: SafePath
    size: Size
    sha256: Sha256


class LockedPart(Locked):
    """Files of one place: `source` as in models.json, of a repository with its commit, which is `revision`.

    `licence` is the id that the repository's card gives, null where it gives none; `gated`: it has to be
    accepted, and HF_TOKEN be set, in each pod.
    """

    source: dict[Text, int | _Plain]
    revision: _Plain
    licence: Text | None = None
    gated: bool = False
    files: TupleOf[LockedPiece] = Field(min_length=1)

    @field_validator("files")
    @classmethod
    def _once(cls, files: tuple[LockedPiece, ...]) -> tuple[LockedPiece, ...]:
        return _unique(files, [each.path for each in files])

    @model_validator(mode="after")
    def _from_somewhere(self) -> Self:
        """Refuse a source that a pod could not fetch from, or that is not pinned."""
        shape = _SOURCES.get(str(self.source.get("kind")))
        if shape is None:
            raise ValueError("its source is of no kind that is known")
        try:
            shape.model_validate(self.source)
        except ValidationError as wrong:
            first = wrong.errors(include_url=False)[0]
            where = "".join(f".{each}" for each in first["loc"])
            raise ValueError(f"source{where}: {first['msg'].removeprefix('Value error, ')}") from None
        if self.source.get("revision", self.revision) != self.revision:
            raise ValueError("its source and its revision are two commits")
        return self

    @property
    def name(self) -> str:
        """What it comes from, in one word."""
        source = self.source
        match source.get("kind"):
            case "huggingface":
                return f"huggingface:{source['repo']}"
            case "civitai":
                return f"civitai:{source.get('model', '')}@{source['version']}"
        return str(source["url"])

    @property
    def folder(self) -> str:
        """What stands before the paths of its files where those of several places are listed."""
        return urlsplit(self.name).netloc or self.name.partition(":")[2]


class LockedFound(Locked):
    """What a word led to: `decision` as server.detection tells it, and its parts: `model`, perhaps `base`."""

    decision: dict[str, Any]
    parts: dict[Text, LockedPart]

    @field_validator("decision")
    @classmethod
    def _readable(cls, decision: dict[str, Any]) -> dict[str, Any]:
        """Refuse what no pod could read."""
        try:
            found = record.decision_of(decision)
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise ValueError(f"it is no decision on a model ({wrong!r})") from None
        json.dumps(decision, ensure_ascii=False).encode()  # a lone surrogate cannot be written
        if not found.kind or decision.get("refusal"):
            raise ValueError("it is no decision on a model that can be served")
        _unique(found.files, [each.path for each in found.files])
        return decision

    @field_validator("parts")
    @classmethod
    def _whole(cls, parts: dict[str, LockedPart]) -> dict[str, LockedPart]:
        if "model" not in parts or parts.keys() - {"model", "base"}:
            raise ValueError("expected the parts model and, where there is one, base")
        return parts


class LockedWord(Locked):
    """A word of the description. `key` finds it in a pod: its part, the word, and what else decided."""

    key: TupleOf[_Plain] = Field(min_length=2, max_length=4)
    found: LockedFound | None

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        """Refuse files that are not those of the decision: a pod would load something else."""
        if self.found is None:
            return self
        found, parts = record.decision_of(self.found.decision), self.found.parts
        chosen = found.files[:1] if self.role == "lora" else found.files
        if {each.path for each in chosen} != {each.path for each in parts["model"].files}:
            raise ValueError("its files are not those that the decision names")
        if (self.role == "model" and found.base is not None) != ("base" in parts):
            raise ValueError("it has a base and no decision on one, or the other way round")
        return self

    @property
    def role(self) -> str:
        """`model`, `vae`, `controlnet` or `lora`."""
        return self.key[0]

    @property
    def word(self) -> str:
        """The word itself."""
        return self.key[1]

    @property
    def name(self) -> str:
        """What it is called among files, as long as none of its own are known."""
        return name_of_word(self.key)

    def files(self) -> Iterator[LockedFile]:
        """Yield its files as those of weights are told; one without hash and size for a word not found."""
        if self.found is None:
            yield LockedFile(destination=self.name, source=self.word, revision=None, size=None, sha256=None)
            return
        for part in self.found.parts.values():
            commit = part.revision if part.source.get("kind") == "huggingface" else None
            for each in part.files:
                yield LockedFile(
                    destination=f"{part.folder}/{each.path}",
                    source=part.name,
                    revision=commit,
                    size=each.size,
                    sha256=each.sha256,
                )


class ModelLock(Locked):
    """The document. `variables`: the model as it is described; `diffusers`: the release that decided."""

    schema_version: Schema = validation.SCHEMA
    variables: dict[Text, Text]
    diffusers: Text
    words: TupleOf[LockedWord] = Field(min_length=1)

    @property
    def unresolved(self) -> tuple[LockedWord, ...]:
        """The words that are not locked."""
        return tuple(word for word in self.words if word.found is None)

    @property
    def files(self) -> tuple[LockedFile, ...]:
        """All files, each once, as those of weights are told."""
        found = {file.destination: file for word in self.words for file in word.files()}
        return tuple(found.values())

    def to_json(self) -> dict[str, Any]:
        """Return model-lock.json, which server.weights.image_lock reads in a pod."""
        return {
            "schema": 1,
            "variables": self.variables,
            "diffusers": self.diffusers,
            "words": [
                {"key": list(word.key), "found": word.found and word.found.model_dump(mode="json")}
                for word in self.words
            ],
        }


@dataclass(frozen=True)
class LockedModel:
    """What is locked, and where."""

    path: Path
    document: ModelLock


def keys(settings: Settings, model: LockedWord) -> Iterator[tuple[str, ...]]:
    """Yield the keys of all words of a description; `model` is what its first word led to."""
    yield record.key_of(settings)
    roles = {"vae": settings.vae, "controlnet": settings.controlnet}
    yield from ((role, word) for role, word in roles.items() if word)
    found = decision(model)
    yield from (record.lora_key(each.word, found.family if found else "") for each in settings.loras)


def name_of(described: LoadedVariant) -> str:
    """Return what a variant's model is called among weights."""
    return f"model of {described.name}"


def name_of_word(key: Sequence[str]) -> str:
    """Return what a word that is not locked is called among files: its role and itself."""
    return f"{key[0]} {key[1]}"


def path_of(described: LoadedVariant) -> Path:
    """Return where the lock of a variant's model lies."""
    own = locations.user_lock_dir(described)
    return own / locations.MODEL if own else locations.LOCKS / locations.MODELS / f"{described.name}.json"


def read(described: LoadedVariant) -> tuple[LockedModel | None, list[str]]:
    """Return the lock of a variant's model, and what is wrong: one sentence each.

    Raises LockError: a damaged one.
    """
    path, model = path_of(described), described.spec.model
    known = at(path)
    if model is None:
        return None, [f"{path} is of a model, and none is described."] if known else []
    if known is None:
        return None, [f"model: {model.id} is not locked: there is no {path}."]
    if known.variables != model.variables():
        return None, ["model: something else was locked than is described now."]
    if [word.key for word in known.words] != list(keys(model.settings(), known.words[0])):
        return None, [f"model: {path} has other words than are described."]
    if known.diffusers != families.DIFFUSERS:
        return None, [f"model: it was locked for diffusers {known.diffusers}, and the image has another."]
    return LockedModel(path, known), []


def find_drift(described: LoadedVariant) -> list[str]:
    """Return why an image would not always serve the same, one sentence each. Raises LockError."""
    found, problems = read(described)
    return problems + [
        f"model: {word.word} is not resolved, so a pod would take what its hub says that day."
        for word in (found.document.unresolved if found else ())
    ]


def at(path: Path) -> ModelLock | None:
    """Return the lock that lies there, whether it fits or not. Raises LockError: damaged."""
    try:
        return validation.read(path, ModelLock, hint=validation.DAMAGED)
    except FileNotFoundError:
        return None


def decision(word: LockedWord) -> Decision | None:
    """Return what a word was found to be; None where it is not locked."""
    return record.decision_of(word.found.decision) if word.found else None


def known(document: ModelLock | None) -> Mapping[tuple[str, ...], LockedFound]:
    """Return what is locked by key, as far as today's diffusers would decide alike."""
    if document is None or document.diffusers != families.DIFFUSERS:
        return {}
    return {word.key: word.found for word in document.words if word.found}
