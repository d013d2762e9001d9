"""CivitAI's answer about a model version: whether it can be downloaded, and which of its files is meant.

Builder and pod read it here, by the same list of signals (variants/flags/civitai.yaml).
API: https://developer.civitai.com/site/reference/model-versions
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pod.model_refs import filenames
from pod.net.http import RefusedError
from pod.util.dataclass import dataclass, field
from pod.util.pickles import is_pickle
from pod.util.printable import shown
from pod.util.stated import is_count, is_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.resolve.model_type import Types

_NOT_SENT = frozenset({"token", "fileid"})


class WithheldError(RefusedError):
    """Only accounts with access can download it, and no token of one was given."""


@dataclass(frozen=True)
class Row:
    """One file of a version; what its answer has in another shape than the API's is None or empty.

    `size` is what sizeKB gives, in bytes, and rounded; `sha256` is in lower case, as hex digits.
    """

    number: int | None
    name: str
    type: str
    metadata: Mapping[str, str]
    primary: bool
    sha256: str | None
    size: int | None
    link: str
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def unsafe(self) -> bool:
        """Whether it can run code when it is loaded."""
        return self.metadata.get("format", "").casefold() == "pickletensor" or is_pickle(self.name)

    @property
    def called(self) -> str:
        """Its name and number, for messages."""
        return shown(self.name) + (f" (+{self.number})" if self.number else "")


@dataclass(frozen=True)
class Version:
    """A version: `type` is its model's."""

    model: int | None
    type: str
    files: Sequence[Row]
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Terms:
    """What CivitAI's signals mean: the lists of variants/flags/civitai.yaml."""

    version: Sequence[Mapping[str, Any]]
    file: Sequence[Mapping[str, Any]]
    models: frozenset[str]
    no_models: frozenset[str]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Terms:
        """Read `civitai` of model-types.json. Raises KeyError, TypeError, AttributeError."""
        models, no_models = (
            frozenset(name.casefold() for name in data[key]) for key in ("models", "no_models")
        )
        return cls(tuple(data["version"]), tuple(data["file"]), models, no_models)

    def check_version(self, version: Version, page: str, *, token: bool, fetched: bool = True) -> list[str]:
        """Return what is to be said of a version. Raises RefusedError, WithheldError.

        Args:
            version: As CivitAI describes it.
            page: Where a person finds it.
            token: Whether CIVITAI_TOKEN is set.
            fetched: Whether it is about to be fetched, and not only asked for its hash.
        """
        said = _judge(self.version, version.raw, page, token=token, fetched=fetched)
        if not version.files:
            raise RefusedError(f"lists no file at {page}: nothing was uploaded, or all was removed")
        return said

    def check_file(self, row: Row, page: str, *, token: bool) -> list[str]:
        """Return what is to be said of a file. Raises RefusedError, WithheldError."""
        return _judge(self.file, row.raw, page, token=token, fetched=True)

    def choose(self, version: Version, source: Mapping[str, Any], page: str) -> Row:
        """Return the file that a source names: by its number, by what it is, or else the main one.

        Raises RefusedError.
        """
        number, choice = source.get("file"), source.get("choice") or {}
        if number is None and not choice:
            return self._main(version.files)
        fitting = [
            row
            for row in version.files
            if number in {None, row.number} and all(_is(row, key, value) for key, value in choice.items())
        ]
        if not fitting:
            names = ", ".join(row.called for row in version.files[:20])
            raise RefusedError(
                f"is not one of the files at {page}, which are {names}: correct what is asked for"
            )
        return next((row for row in fitting if row.primary), fitting[0])

    def _main(self, files: Sequence[Row]) -> Row:
        models = [row for row in files if row.type.casefold() in self.models]
        others = [row for row in files if row.type.casefold() not in self.no_models]
        return next(
            (row for group in (models, others) for row in group if row.primary),
            (models or others or list(files))[0],
        )


def read(info: Any, page: str, number: int | None = None) -> Version:
    """Read the answer for a version, whatever shape it has. Raises RefusedError for what is not that version.

    Args:
        info: Parsed JSON.
        page: Where it comes from, for messages.
        number: The version that was asked for, where that is known.
    """
    if not isinstance(info, dict):
        raise RefusedError(f"cannot be resolved: {page} answered with something else than a version")
    told = info.get("id")
    if told is not None and number is not None and told != number:
        raise RefusedError(f"cannot be resolved: {page} answered with version {shown(told)} for {number}")
    model = info.get("model")
    type_ = model.get("type") if isinstance(model, dict) else None
    files = info.get("files")
    rows = files if isinstance(files, list) else []
    return Version(
        _whole(info.get("modelId")),
        _text(type_),
        tuple(_row(each) for each in rows if isinstance(each, dict) and _text(each.get("name"))),
        info,
    )


def query(row: Row) -> str:
    """Return what has to be added to the download's address to get this file.

    Its number decides; the rest is what the site's own address for it says. Without a number, the primary
    file needs nothing, though which one that is depends on the preferences of the account.
    """
    asked = [] if row.primary else parse_qsl(_query_of(row.link))
    kept = [(key, value) for key, value in asked if key.lower() not in _NOT_SENT]
    return urlencode(kept + ([("fileId", str(row.number))] if row.number else []))


def sha256(row: Row, page: str, remedy: str) -> str:
    """Return CivitAI's hash of a file. Raises RefusedError, with what to do about it, where there is none."""
    if not row.sha256:
        raise RefusedError(f"has no sha256 at {page} yet: {remedy}")
    return row.sha256


def check_kind(types: Types, version: Version, row: Row, folder: str, name: str) -> None:
    """See that a file is what a description takes it for. Raises RefusedError.

    A folder that no kind of model has may be a custom node's, and takes any.

    Args:
        types: The kinds of models.
        version: As CivitAI describes it.
        row: The file of it.
        folder: Where it is to lie, below models/.
        name: The name that it is to get.
    """
    if not filenames.suffix(row.name):
        raise RefusedError(
            f"has the file {row.called}, which is not a model file: choose another of its files"
        )
    if filenames.suffix(name) != filenames.suffix(row.name):
        raise RefusedError(f"has the file {row.called}, which cannot be called {shown(name)}")
    claimed = types.claimed((row.type, version.type))
    if claimed is None and types.is_no_model(version.type):
        raise RefusedError(f"is of the type {shown(version.type)}, which is not a model")
    top = folder.partition("/")[0]
    homes = [kind for kind in types.kinds.values() if kind.folder == top]
    if claimed and not claimed.vague and homes and not any(kind.agrees_with(claimed) for kind in homes):
        raise RefusedError(
            f"is {claimed.what} there, which does not belong into {shown(folder)}: correct the folder, "
            "or write the sha256 of the file that you trust into the description"
        )


def safer(version: Version, row: Row) -> Row:
    """Return the .safetensors beside a pickle, if there is one of the same type."""
    if row.unsafe:
        beside = [each for each in version.files if each.type == row.type and not each.unsafe]
        return next((each for each in beside if each.name.endswith(".safetensors")), row)
    return row


# --- the answer's shape


def _row(each: Mapping[str, Any]) -> Row:
    metadata = each.get("metadata")
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    hashes = each.get("hashes")
    digest = _text(hashes.get("SHA256")).lower() if isinstance(hashes, dict) else ""
    return Row(
        number=_whole(each.get("id")),
        name=_text(each.get("name")),
        type=_text(each.get("type")),
        metadata={str(key).casefold(): _text(value) for key, value in pairs},
        primary=each.get("primary") is True,
        sha256=digest if is_sha256(digest) else None,
        size=_bytes(each.get("sizeKB")),
        link=_text(each.get("downloadUrl")),
        raw=each,
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    return value if value and is_count(value) else None


def _bytes(kilobytes: Any) -> int | None:
    if type(kilobytes) not in {int, float} or not math.isfinite(kilobytes):
        return None
    return _whole(round(kilobytes * 1024))


def _query_of(link: str) -> str:
    try:
        return urlsplit(link).query
    except ValueError:
        return ""


def _is(row: Row, key: str, value: str) -> bool:
    """Compare as the site's download address does: `type` is the file's, the rest are in its metadata."""
    has = row.type if key == "type" else row.metadata.get(key.casefold(), "")
    return has.casefold() == value.casefold()


# --- the signals


def _judge(
    rules: Sequence[Mapping[str, Any]], raw: Mapping[str, Any], page: str, *, token: bool, fetched: bool
) -> list[str]:
    fitting = [rule for rule in rules if _fits(rule, raw)]
    for effect in ("refuse", "token", "login", "warn"):
        for rule in fitting:
            if rule["effect"] != effect:
                continue
            sentence = rule["says"].format(page=page, value=shown(_at(raw, rule["field"])))
            if effect == "refuse":
                raise RefusedError(sentence)
            if effect in {"token", "login"} and not token and (fetched or effect == "token"):
                raise WithheldError(
                    f"{sentence}; set CIVITAI_TOKEN to a token of an account that may download it"
                )
    return [
        rule["says"].format(page=page, value=shown(_at(raw, rule["field"])))
        + ("; it is asked for with CIVITAI_TOKEN" if rule["effect"] == "token" else "")
        for rule in fitting
        if not (rule["effect"] == "login" and token)
    ]


def _fits(rule: Mapping[str, Any], raw: Mapping[str, Any]) -> bool:
    value = _at(raw, rule["field"])
    if value is None or value == "":
        return False
    if rule.get("unless_past") and _is_past(_at(raw, rule["unless_past"])):
        return False
    if rule.get("future"):
        return not _is_past(value)
    word = str(value).casefold() if isinstance(value, str | bool) else ""
    if rule.get("values"):
        return word in {each.casefold() for each in rule["values"]}
    return word not in {each.casefold() for each in rule["other_than"]}


def _at(raw: Mapping[str, Any], path: str) -> Any:
    value: Any = raw
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _is_past(moment: Any) -> bool:
    """Tell whether a moment is over; one that cannot be read is not."""
    try:
        found = datetime.fromisoformat(moment)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)) <= datetime.now(tz=UTC)
    except (TypeError, ValueError, OverflowError):
        return False
