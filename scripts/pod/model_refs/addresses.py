"""Addresses of files, in all the ways in which people write them, become sources as models.json has them.

AIR: https://developer.civitai.com/site/guide/air
"""

from __future__ import annotations

import re

from pod.util.dataclass import dataclass, field
from pod.util.env import is_host
from pod.util.printable import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any
    from urllib.parse import SplitResult

FORMS = "civitai:MODEL@VERSION, hf:org/repo@revision/name.safetensors or https://…#sha256=…"
SCHEME = r"(?:hf|huggingface|civitai|urn|air|https?):|[\w.-]+:[\w.-]+:civitai:"
_HF_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_CIVITAI_HOSTS = frozenset({"civitai.com", "www.civitai.com", "civitai.red", "civitai.green"})
_HF = re.compile(
    r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(?:@(?P<revision>refs(?:/|%2[Ff])\w+(?:/|%2[Ff])[\w.-]+|[^/@]+))?(?:/(?P<path>.*))?",
    re.ASCII,
)
_HF_PAGE = re.compile(
    r"(?P<repo>[^/]+/[^/]+)/(?:blob|resolve|raw)/(?P<revision>refs/\w+/[^/]+|[^/]+)/(?P<path>.+)"
)
_AIR = re.compile(
    r"(?:urn:)?(?:air:)?(?P<middle>.*?)(?P<source>civitai(?:-r2)?|huggingface|orchestrator):(?P<id>.*)"
)
_CIVITAI = re.compile(
    r"(?P<model>[0-9]{1,15})@(?P<version>[0-9]{1,15})(?:\+(?P<file>[0-9]{1,15}))?(?:\.(?P<format>[a-z ]+))?"
)
_CIVITAI_MODEL = re.compile(r"/models/([0-9]{1,15})(?:/[^/]*)?/?")
_CIVITAI_VERSION = re.compile(
    r"/(?:api/download/models|api/v1/model-versions|model-versions)/([0-9]{1,15})/?"
)
# What names one of a version's several files in a download's address, as the site itself reads it:
# https://github.com/civitai/civitai, src/server/services/file.service.ts (getFileForModelVersion).
_NUMBER = "fileid"
_CHOICES = {"type": "type", "format": "format", "size": "size", "fp": "fp", "quanttype": "quantType"}
_LONGEST_CHOICE = 40
# The formats of an AIR, and what CivitAI calls them.
_FORMATS = {
    "safetensor": "SafeTensor",
    "safetensors": "SafeTensor",
    "ckpt": "PickleTensor",
    "pickletensor": "PickleTensor",
    "gguf": "GGUF",
    "onnx": "ONNX",
    "diffuser": "Diffusers",
    "diffusers": "Diffusers",
    "core ml": "Core ML",
    "other": "Other",
}


class ModelRefError(ValueError):
    """A malformed reference; the message continues a sentence that begins with it."""


@dataclass(frozen=True)
class Address:
    """Where a file is: `word` may be shown; `source` is as in models.json.

    For CivitAI the source has `model`, `file` or `choice` too, where they are known; `kind` is the type that
    an AIR claims.
    """

    word: str
    source: Mapping[str, Any] = field(repr=False)  # a URL may hold a token
    kind: str | None = None


def read(address: str, *, vouched: bool) -> Address:
    """Read an address without its fragment; `vouched`: its sha256 is known. Raises ModelRefError."""
    scheme, _, rest = address.partition(":")
    match scheme.lower():
        case "hf" | "huggingface":
            return _huggingface(rest.removeprefix("//").partition("?")[0])
        case "civitai":
            return _civitai(rest)
        case "http" | "https":
            return _url(address, vouched=vouched)
    return _air(address)


# --- Hugging Face


def _huggingface(text: str) -> Address:
    _check_is_model(text)
    match = _HF.fullmatch(text)
    if not match:
        raise ModelRefError("names no file on Hugging Face: write hf:org/repo@revision/path/name.safetensors")
    return _of_repository(match["repo"], match["revision"], match["path"] or "")


def _huggingface_page(parts: SplitResult) -> Address:
    path = parts.path.strip("/")
    _check_is_model(path)
    if not (match := _HF_PAGE.fullmatch(path)):
        return _of_repository(path, None, "")  # which says what is missing
    return _of_repository(match["repo"], match["revision"], match["path"])


def _check_is_model(path: str) -> None:
    if path.partition("/")[0] in {"datasets", "spaces"}:
        raise ModelRefError("is in a data set or a space: only files of model repositories are fetched")


def _of_repository(repo: str, revision: str | None, path: str) -> Address:
    from urllib.parse import unquote  # noqa: PLC0415 - only needed for a named file

    path, revision = unquote(path), unquote(revision or "main")
    if not path or path.endswith("/"):
        raise ModelRefError(
            "names a repository or a folder, not a file: open the file's page and copy its "
            "address, or write hf:org/repo@revision/path/name.safetensors"
        )
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or any(part in {"", ".", ".."} for part in parts):
        raise ModelRefError("has a path that cannot be in a repository")
    if not re.fullmatch(r"[\w./-]+", revision) or ".." in revision:
        raise ModelRefError(f"has {shown(revision, 80)!r} where a commit, branch or tag is expected")
    source = {"kind": "huggingface", "repo": repo, "revision": revision, "path": path}
    return Address(f"hf:{repo}@{revision}/{path}", source)


# --- CivitAI


def _civitai(text: str, kind: str | None = None) -> Address:
    named, _, query = text.partition("?")
    match = _CIVITAI.fullmatch(named)
    if not match and named.isdecimal():
        raise ModelRefError(
            "could be a model or a version: write both, civitai:MODEL@VERSION, as they stand in the page's "
            "address, civitai.com/models/MODEL?modelVersionId=VERSION"
        )
    if not match:
        raise ModelRefError(
            "names no version on CivitAI: write civitai:MODEL@VERSION, such as civitai:328553@368189"
        )
    model, version = int(match["model"]), int(match["version"])
    if any(each != match["version"] for each in _versions(query)):
        raise ModelRefError("names two versions: copy the address of one file again")
    chosen = _chosen(query, match["file"], match["format"])
    source: dict[str, Any] = {"kind": "civitai", "version": version, "model": model, **chosen}
    number = f"+{source['file']}" if "file" in source else ""
    return Address(f"civitai:{model}@{version}{number}{_said(chosen.get('choice', {}))}", source, kind)


def _chosen(query: str, number: str | None = None, format_: str | None = None) -> dict[str, Any]:
    """Return `file`, `choice` or both, where an address names one of several files. Raises ModelRefError."""
    from urllib.parse import parse_qs  # noqa: PLC0415 - only needed for a named file

    given = {key.lower(): values for key, values in parse_qs(query).items()}
    for key, values in given.items():
        if key not in {_NUMBER, *_CHOICES} and re.search(r"file|version", key) and key != "modelversionid":
            raise ModelRefError(f"has {shown(key, 80)}=, which is not known here: name the file by fileId=")
        if key in {_NUMBER, *_CHOICES} and len(set(values)) > 1:
            raise ModelRefError(f"has {key}= twice, with two values: name one file")
    numbers = {each for each in (number, *given.get(_NUMBER, ())) if each is not None}
    if len(numbers) > 1 or not all(re.fullmatch(r"[0-9]{1,15}", each) for each in numbers):
        raise ModelRefError("names a file by something else than one number: copy its address again")
    choice = {name: given[key][0] for key, name in _CHOICES.items() if key in given}
    if format_ is not None:
        if format_ not in _FORMATS:
            raise ModelRefError(
                f"ends in .{shown(format_, 80)}, which is not a format of CivitAI: leave it out"
            )
        choice.setdefault("format", _FORMATS[format_])
    for key, value in choice.items():
        if not value.isprintable() or len(value) > _LONGEST_CHOICE:
            raise ModelRefError(
                f"has {key}= with a value that no file on CivitAI has: copy its address again"
            )
    found: dict[str, Any] = {"file": int(numbers.pop())} if numbers else {}
    return found | ({"choice": choice} if choice else {})


def _versions(query: str) -> list[str]:
    from urllib.parse import parse_qs  # noqa: PLC0415 - only needed for a named file

    given = parse_qs(query)
    return [value for key, values in given.items() if key.lower() == "modelversionid" for value in values]


def _said(choice: Mapping[str, str], **more: int) -> str:
    """Return a choice as the query of an address."""
    from urllib.parse import quote, urlencode  # noqa: PLC0415 - only needed for a named file

    return "?" + urlencode({**choice, **more}, quote_via=quote) if choice or more else ""


def _air(text: str) -> Address:
    match = _AIR.fullmatch(text.lower())
    if not match:
        raise ModelRefError(
            "is not the AIR of a file: copy it from the model's page: urn:air:sdxl:lora:civitai:328553@368189"
        )
    if match["source"] != "civitai":
        raise ModelRefError(f"is an AIR of {match['source']}, which names no file here: write {FORMS}")
    kinds = [part for part in match["middle"].split(":") if part]
    return _civitai(match["id"], kinds[-1] if kinds else None)


def _civitai_page(parts: SplitResult) -> Address:
    versions = set(_versions(parts.query))
    if match := _CIVITAI_MODEL.fullmatch(parts.path):
        if len(versions) != 1 or not (version := versions.pop()).isdecimal():
            raise ModelRefError(
                "names a model and no version of it: choose the version on the page, and copy the address "
                "then, which ends in ?modelVersionId=…; or write civitai:MODEL@VERSION"
            )
        return _civitai(f"{match[1]}@{version}?{parts.query}")
    if not (match := _CIVITAI_VERSION.fullmatch(parts.path)):
        raise ModelRefError("is not the page of a model on CivitAI: write civitai:MODEL@VERSION")
    if versions - {match[1]}:
        raise ModelRefError("names two versions: copy the address of one file again")
    chosen = _chosen(parts.query)
    number = {"fileId": chosen["file"]} if "file" in chosen else {}
    word = f"https://civitai.com/api/download/models/{match[1]}{_said(chosen.get('choice', {}), **number)}"
    return Address(word, {"kind": "civitai", "version": int(match[1]), **chosen})


# --- any other


def _url(address: str, *, vouched: bool) -> Address:
    from urllib.parse import urlsplit  # noqa: PLC0415 - only needed for a named file

    try:
        parts = urlsplit(address)
        good = parts.hostname and parts.port != 0
    except ValueError:  # an invalid port, unclosed brackets
        good = False
    if not good:
        raise ModelRefError("is not an address: write https://host/path/name.safetensors#sha256=…")
    host = parts.hostname or ""
    if not is_host(host):
        raise ModelRefError(
            f"has {shown(host, 80)!r}, and there is no such host name: copy the address again"
        )
    if parts.username is not None:
        raise ModelRefError("holds a login, which is not sent: take an address that works without one")
    if host in _HF_HOSTS | _CIVITAI_HOSTS:
        if "," in parts.query:  # the query is not sent, and what it swallowed would be lost without a sound
            raise ModelRefError("has a comma after its '?': put a blank between this word and the next one")
        return _huggingface_page(parts) if host in _HF_HOSTS else _civitai_page(parts)
    if not vouched:
        raise ModelRefError(
            "has no sha256, so nothing vouches for the file: add #sha256= and the 64 hex digits that its "
            "page or `sha256sum` shows"
        )
    return Address(f"{parts.scheme}://{parts.netloc}{parts.path}", {"kind": "https", "url": address})
