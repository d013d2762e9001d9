"""Sizes and hashes from CivitAI.

Source: https://developer.civitai.com, GET /api/v1/model-versions/{id}; hashes are in upper case there, and
sizes a float in KiB. The token goes into a header, and to this host alone. What the answer means, and what
must not be taken, is one rule for lock and pods: pod.resolve.civitai, with the lists of
variants/flags/civitai.yaml.
"""

from __future__ import annotations

import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pod.net import http as pod_web
from pod.net.hubs import Request
from pod.resolve import civitai
from pod.resolve.civitai import Terms
from pod.resolve.model_type import Types
from podkiln.config import model_types
from podkiln.config.model import UNRESOLVED
from podkiln.lock.resolve import civitai_api
from podkiln.lock.resolve.errors import AccessDeniedError, FileMetadata, RefusedError, UnclearError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pod.net.hubs import Hubs
    from pod.resolve.civitai import Row, Version
    from podkiln.config.model import ModelFile
    from podkiln.lock.resolve.http import Reply, Web


class Civitai:
    """CivitAI's API."""

    def __init__(self, hubs: Hubs, web: Web) -> None:
        self.endpoint = hubs.civitai
        self.host = urlsplit(self.endpoint).netloc
        self._hubs = hubs
        self._web = web
        self._facts = model_types.to_json()

    def find(self, file: ModelFile) -> FileMetadata:
        """Return what CivitAI knows of a version's file.

        Raises UnreachableError, AccessDeniedError, RefusedError.
        """
        if file.civitai is None:
            raise ValueError("expected a file from CivitAI")
        number = file.civitai.version
        version = self._version(number)
        if version.model not in (None, file.civitai.model):
            raise RefusedError(f"version {number} belongs to model {version.model} on {self.host}")
        with self._refusals(number):
            row, said = self._judged(version, number, file.civitai.file)
            if (row.unsafe or file.pickle) and file.sha256 == UNRESOLVED:
                raise pod_web.RefusedError(
                    "is a pickle, which can run code: choose a safetensors "
                    "version, or write the sha256 of the file that you trust into the description"
                )
            if file.sha256 == UNRESOLVED:
                civitai.check_kind(Types(self._facts), version, row, file.folder, file.filename)
        return FileMetadata(revision=None, size=row.size, sha256=row.sha256, remarks=tuple(said))

    def file(self, number: int, chosen: int | None) -> FileMetadata:
        """Return what CivitAI knows of a file of a version, by its number, or of the main one.

        Raises as `find` does.
        """
        version = self._version(number)
        with self._refusals(number):
            row, said = self._judged(version, number, chosen)
        return FileMetadata(revision=None, size=row.size, sha256=row.sha256, remarks=tuple(said))

    def _judged(self, version: Version, number: int, chosen: int | None) -> tuple[Row, list[str]]:
        """Return a file of a version, and what is to be said. Raises as the pod does."""
        terms = Terms.from_json(self._facts["civitai"])
        page = f"{self.endpoint}/model-versions/{number}"
        token = self._hubs.credential("CIVITAI_TOKEN") is not None
        said = terms.check_version(version, page, token=token, fetched=False)
        row = terms.choose(version, {"file": chosen}, page)
        return row, said + terms.check_file(row, page, token=token)

    @contextlib.contextmanager
    def _refusals(self, number: int) -> Iterator[None]:
        """Turn what the pod's rules refuse into AccessDeniedError and RefusedError."""
        try:
            yield
        except civitai.WithheldError as withheld:
            raise AccessDeniedError(f"version {number} on {self.host} {withheld}") from None
        except pod_web.RefusedError as refused:
            raise RefusedError(f"version {number} on {self.host} {refused}") from None

    def _version(self, number: int) -> Version:
        """Return what the site says of a version, each key of its type or not there."""
        credential = self._hubs.credential("CIVITAI_TOKEN")
        url = f"{self.endpoint}/api/v1/model-versions/{number}"
        page = f"{self.endpoint}/model-versions/{number}"

        def use(reply: Reply) -> Version:
            status = reply.status
            if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
                raise AccessDeniedError(
                    f"version {number} on {self.host} requires a login: set CIVITAI_TOKEN"
                )
            if status in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}:
                raise RefusedError(f"{self.host} has no version {number}, or has it no longer ({status})")
            if status != HTTPStatus.OK:
                raise UnclearError(f"{self.host} answered {status} for version {number}")
            answer = civitai_api.version(reply.json(), f"what {self.host} says of version {number}")
            try:
                return civitai.read(answer, self.host, number)
            except pod_web.RefusedError as refused:
                raise UnclearError(f"version {number} {refused}") from None

        return self._web.ask(Request(url, page, credential, "CIVITAI_TOKEN"), use)
