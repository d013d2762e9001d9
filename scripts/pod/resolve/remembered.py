"""What a volume's record (resolved_cache) may add to what somebody wrote, and that it never overrides that.

Everybody who can write the volume can write the record, so a row is only believed as far as the word, or
the image's models.json, says nothing of its own.

What was hashed before (`.verified.json`, beside the files) is another matter: it is believed as long as size
and mtime are the same, and cannot be authenticated. Who writes the volume can forge it; they can also put
code into custom_nodes, which ComfyUI runs. `fetch --verify` believes no such record, and hashes all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from pod.model_refs import filenames
from pod.model_refs.models_json import ModelFile
from pod.util.dataclass import replace
from pod.util.stated import is_count, is_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pod.model_refs.model_ref import ModelRef

_COMMIT = re.compile(r"[0-9a-f]{40}")
_COMMIT_PREFIX = re.compile(r"[0-9a-f]{7,40}")
_NOT_ASKED = frozenset({"token", "modelversionid"})  # of a query: what no row of a version adds


def read(row: Any, unplaced: ModelFile, wish: ModelRef) -> ModelFile:
    """Return the file that a row of the record tells; its folder and name are still to be checked.

    Raises KeyError, TypeError, ValueError, AttributeError for a row of another shape, and for one that
    disagrees with the hash or the source that the word states.
    """
    file = ModelFile.from_json(unplaced.model, {**row, "optional": False})
    filenames.checked_path(file.folder)
    filenames.checked_path(file.name)
    if file.size is not None and not is_count(file.size):
        raise ValueError("its size is none")
    if file.sha256 is not None and not is_sha256(file.sha256):
        raise ValueError("its sha256 is none")
    if wish.sha256 and file.sha256 != wish.sha256:
        raise ValueError("the word states another sha256")
    return replace(file, source=_source(file.source, wish), wish=wish)


def name_told(wish: ModelRef) -> str | None:
    """Return the name that a word's source has by itself; None where only the server knows it.

    Raises ValueError for what can be no file's name.
    """
    match wish.source["kind"]:
        case "huggingface":
            return filenames.safe(wish.source["path"])
        case "https":
            name = wish.name or unquote(urlsplit(wish.source["url"]).path.rpartition("/")[2])
            return filenames.safe(name) if filenames.suffix(name) else None
    return None


def is_commit_of(stated: str, commit: str | None) -> bool:
    """Tell whether a commit may be what a revision led to: of a stated commit, itself or what it begins."""
    if commit is None or not _COMMIT.fullmatch(commit):
        return False
    return not _COMMIT_PREFIX.fullmatch(stated) or commit.startswith(stated)


def is_pinned(source: Mapping[str, Any]) -> bool:
    """Tell whether a source states a commit, and so its bytes: nothing is left to add but what they are."""
    return source["kind"] == "huggingface" and bool(_COMMIT_PREFIX.fullmatch(source.get("revision") or ""))


def _source(told: Mapping[str, Any], wish: ModelRef) -> dict[str, Any]:
    """Return the word's source with what only a hub could add: a branch's commit, a file's query.

    Raises ValueError where the row's source differs in anything else.
    """
    stated = dict(wish.source)
    if stated["kind"] == "https":  # which is not in the record: it may hold a token
        return stated
    added: dict[str, Any] = {}
    if stated["kind"] == "huggingface" and told["revision"] != stated["revision"]:
        if wish.sha256 or not is_commit_of(stated["revision"], told["revision"]):
            raise ValueError("the word states another revision")
        added["revision"] = told["revision"]
    if stated["kind"] == "civitai" and ("query" in told or "choice" in stated):
        _check_query(told["query"], stated)
        added["query"] = told["query"]
    if {**stated, **added} != dict(told):
        raise ValueError("the word states another source")
    return {**stated, **added}


def _check_query(query: str, stated: Mapping[str, Any]) -> None:
    """Compare the query of a download with the file that the word states. Raises ValueError."""
    pairs = parse_qsl(query, keep_blank_values=True)
    if urlencode(pairs) != query:
        raise ValueError("its query is none that was written here")
    given = {key.lower(): value for key, value in pairs}
    if len(given) != len(pairs) or not _NOT_ASKED.isdisjoint(given):
        raise ValueError("its query asks for something else")
    wanted = {key.lower(): value for key, value in stated.get("choice", {}).items()}
    if "file" in stated:
        wanted["fileid"] = str(stated["file"])
    for key, value in wanted.items():  # CivitAI's address of a version's main file has its number alone
        default = value if key != "fileid" and "fileid" in given else ""
        if given.get(key, default).casefold() != value.casefold():
            raise ValueError("the word states another file")
