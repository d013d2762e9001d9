"""CivitAI's answer about a model version: whether it can be had, and which of its files is meant.

API: https://developer.civitai.com/site/reference/model-versions
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pod.fetching.web import RefusedError
from pod.pickles import is_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NOT_SENT = frozenset({"token"})


def check_offered(info: Mapping[str, Any], page: str) -> None:
    """Refuse what cannot be fetched. Raises RefusedError."""
    if (info.get("model") or {}).get("mode") == "Archived" or not info.get("files"):
        raise RefusedError(f"was archived at {page} and cannot be had any more; choose another version")
    if (until := info.get("earlyAccessEndsAt")) and until > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()):
        raise RefusedError(f"is in early access until {until} at {page}: wait, or buy access there")


def choose(info: Mapping[str, Any], source: Mapping[str, Any], page: str) -> Mapping[str, Any]:
    """Return the file that a source names: by its number, by what it is, or else the main one.

    Raises RefusedError.
    """
    files: Sequence[Mapping[str, Any]] = info["files"]
    if number := source.get("file"):
        fitting = [row for row in files if row.get("id") == number]
    elif choice := source.get("choice"):
        fitting = [row for row in files if all(_is(row, key, value) for key, value in choice.items())]
    else:
        return next((row for row in files if row.get("primary")), files[0])
    if not fitting:
        names = ", ".join(str(row.get("name")) for row in files)
        raise RefusedError(f"is none of the files at {page}, which are {names}: correct what is asked for")
    return next((row for row in fitting if row.get("primary")), fitting[0])


def query(row: Mapping[str, Any]) -> str:
    """Return what has to be added to the download's address to get this file; nothing for the primary one."""
    if row.get("primary"):
        return ""
    asked = parse_qsl(urlsplit(row.get("downloadUrl") or "").query)
    return urlencode([(key, value) for key, value in asked if key.lower() not in _NOT_SENT])


def sha256(row: Mapping[str, Any], page: str, remedy: str) -> str:
    """Return CivitAI's hash of a file. Raises RefusedError, with what to do about it, where there is none."""
    found = (row.get("hashes") or {}).get("SHA256")
    if not found:
        raise RefusedError(f"has no sha256 at {page} yet: {remedy}")
    return str(found).lower()


def is_unsafe(row: Mapping[str, Any]) -> bool:
    """Tell whether a file can run code when it is loaded."""
    return (row.get("metadata") or {}).get("format") == "PickleTensor" or is_pickle(row["name"])


def safer(info: Mapping[str, Any], row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the .safetensors beside a pickle, if there is one of the same type."""
    if is_unsafe(row):
        beside = [
            each for each in info["files"] if each.get("type") == row.get("type") and not is_unsafe(each)
        ]
        return next((each for each in beside if each["name"].endswith(".safetensors")), row)
    return row


def is_infected(row: Mapping[str, Any]) -> bool:
    """Tell whether CivitAI's own scanners found something."""
    return "Danger" in (row.get("virusScanResult"), row.get("pickleScanResult"))


def _is(row: Mapping[str, Any], key: str, value: str) -> bool:
    """Compare as the site's download address does: `type` is the file's, the rest are in its metadata."""
    has = row.get("type") if key == "type" else (row.get("metadata") or {}).get(key)
    return str(has or "").casefold() == value.casefold()
