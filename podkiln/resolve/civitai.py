"""Sizes and hashes from CivitAI.

Source: https://developer.civitai.com, GET /api/v1/model-versions/{id}; hashes are in upper case there, and
sizes a float in KiB. The token goes into a header, and to this host alone.
"""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pod.fetching.sources import Request
from podkiln.model import UNRESOLVED
from podkiln.resolve import civitai_answer
from podkiln.resolve.answer import Found, RefusedError, UnclearError, WithheldError

if TYPE_CHECKING:
    from pod.fetching.sources import Hubs
    from podkiln.model import ModelFile
    from podkiln.resolve.web import Reply, Web


class Civitai:
    """The site, spoken to by its API."""

    def __init__(self, hubs: Hubs, web: Web) -> None:
        self.endpoint = hubs.civitai
        self.host = urlsplit(self.endpoint).netloc
        self._hubs = hubs
        self._web = web

    def find(self, file: ModelFile) -> Found:
        """Return what CivitAI knows of a version's file. Raises Unreachable-, Withheld- and RefusedError."""
        if file.civitai is None:
            raise ValueError("a file from CivitAI is wanted")
        number = file.civitai.version
        version = self._version(number)
        if version.get("modelId") not in (None, file.civitai.model):
            raise RefusedError(f"version {number} belongs to model {version['modelId']} on {self.host}")
        self._refuse_unobtainable(version, f"version {number} on {self.host}")
        listed = _primary(version)
        if listed is None:
            raise RefusedError(f"version {number} on {self.host} has no file")
        if listed.get("metadata", {}).get("format") == "PickleTensor" and file.sha256 == UNRESOLVED:
            raise RefusedError(
                f"version {number} on {self.host} is a pickle, which can run code: choose a safetensors "
                "version, or write the sha256 of the file that you trust into the description"
            )
        sha256 = listed.get("hashes", {}).get("SHA256")
        size = listed.get("sizeKB")
        return Found(
            revision=None,
            size=round(size * 1024) if size else None,
            sha256=sha256.lower() if sha256 else None,
        )

    def _version(self, number: int) -> dict[str, Any]:
        """Return what the site says of a version, each key of its type or not there."""
        credential = self._hubs.credential("CIVITAI_TOKEN")
        url = f"{self.endpoint}/api/v1/model-versions/{number}"
        page = f"{self.endpoint}/model-versions/{number}"

        def use(reply: Reply) -> dict[str, Any]:
            status = reply.status
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise WithheldError(f"version {number} on {self.host} wants a login: set CIVITAI_TOKEN")
            if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise RefusedError(f"{self.host} has no version {number}, or has it no longer ({status})")
            if status != HTTPStatus.OK:
                raise UnclearError(f"{self.host} answered {status} for version {number}")
            return civitai_answer.version(reply.json(), f"what {self.host} says of version {number}")

        return self._web.ask(Request(url, page, credential, "CIVITAI_TOKEN"), use)

    @staticmethod
    def _refuse_unobtainable(version: dict[str, Any], what: str) -> None:
        mode = (version.get("model") or {}).get("mode")
        if mode:  # Archived or TakenDown
            raise RefusedError(f"{what} is {mode.lower()}: its files cannot be had any more")
        ends = version.get("earlyAccessEndsAt")
        if version.get("availability") == "EarlyAccess" or (ends and _is_future(ends)):
            until = f" until {ends}" if ends else ""
            raise RefusedError(f"{what} is in early access{until}: its download must be paid for")
        if version.get("usageControl") not in (None, "Download"):
            raise RefusedError(f"{what} may be used on the site, but not downloaded")


def _primary(version: dict[str, Any]) -> dict[str, Any] | None:
    """Return the file that a download of the version gives."""
    files: list[dict[str, Any]] = version.get("files") or []
    return next((file for file in files if file.get("primary")), files[0] if files else None)


def _is_future(moment: str) -> bool:
    try:
        ends = datetime.fromisoformat(moment)
    except ValueError:
        return True
    if ends.tzinfo is None:
        ends = ends.replace(tzinfo=UTC)
    return ends > datetime.now(tz=UTC)
