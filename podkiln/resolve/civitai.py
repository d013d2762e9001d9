"""Sizes and hashes from CivitAI.

Source: https://developer.civitai.com, GET /api/v1/model-versions/{id}; hashes are in upper case there, and
sizes a float in KiB. The token goes into a header, which httpx drops where a redirect leaves the host.
What the answer means, and what must not be taken, is one rule for lock and pods: pod.wishes.civitai, with the
lists of variants/flags/civitai.yaml.
"""

from __future__ import annotations

import os
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pod import foreign
from pod.fetching import web as pod_web
from pod.wishes import civitai
from pod.wishes.civitai import Terms
from podkiln import modeltypes
from podkiln.model import UNRESOLVED
from podkiln.resolve import web
from podkiln.resolve.answer import Found, RefusedError, UnreachableError, WithheldError

if TYPE_CHECKING:
    from pod.wishes.civitai import Version
    from podkiln.model import ModelFile

ENDPOINT = "https://civitai.com"


class Civitai:
    """The site, spoken to by its API."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.endpoint = (endpoint or os.environ.get("CIVITAI_ENDPOINT") or ENDPOINT).rstrip("/")
        self.host = urlsplit(self.endpoint).netloc
        self._token = token or os.environ.get("CIVITAI_TOKEN") or None

    def find(self, file: ModelFile) -> Found:
        """Return what CivitAI knows of a version's file. Raises Unreachable-, Withheld- and RefusedError."""
        if file.civitai is None:
            raise ValueError("a file from CivitAI is wanted")
        number = file.civitai.version
        version = self._version(number)
        if version.model not in (None, file.civitai.model):
            raise RefusedError(f"version {number} belongs to model {version.model} on {self.host}")
        try:
            return self._found(file, version)
        except civitai.WithheldError as withheld:
            raise WithheldError(f"version {number} on {self.host} {withheld}") from None
        except pod_web.RefusedError as refused:
            raise RefusedError(f"version {number} on {self.host} {refused}") from None

    def _found(self, file: ModelFile, version: Version) -> Found:
        """Judge a version and its file. Raises the pod's RefusedError and WithheldError."""
        terms = Terms.from_json(modeltypes.to_json()["civitai"])
        chosen = file.civitai
        page = f"{self.endpoint}/model-versions/{chosen.version if chosen else ''}"
        token = self._token is not None
        said = terms.check_version(version, page, token=token, fetched=False)
        row = terms.choose(version, {"file": chosen.file if chosen else None}, page)
        said += terms.check_file(row, page, token=token)
        if (row.unsafe or file.pickle) and file.sha256 == UNRESOLVED:
            raise pod_web.RefusedError(
                "is a pickle, which can run code: choose a safetensors "
                "version, or write the sha256 of the file that you trust into the description"
            )
        return Found(revision=None, size=row.size, sha256=row.sha256, remarks=tuple(said))

    def _version(self, number: int) -> Version:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        answer = web.get(f"{self.endpoint}/api/v1/model-versions/{number}", headers)
        status = answer.status_code
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise WithheldError(f"version {number} on {self.host} wants a login: set CIVITAI_TOKEN")
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
            raise RefusedError(f"{self.host} has no version {number}, or has it no longer ({status})")
        try:
            found = foreign.parse(answer.content) if status == HTTPStatus.OK else None
            return civitai.read(found, self.host)
        except (ValueError, pod_web.RefusedError):
            raise UnreachableError(self.host, f"it answered {status} without a version") from None
