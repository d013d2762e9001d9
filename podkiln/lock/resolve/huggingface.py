"""Sizes, hashes and commits from Hugging Face.

Files in LFS (and Xet) come with their sha256 in the listing. Small ones lie in git itself and have only git's
SHA-1, so they are fetched and hashed, at the commit that the listing was made for.
Source: https://huggingface.co/docs/hub/api (GET /api/models/{repo}/revision/{revision}?blobs=true); for the
header X-Error-Code huggingface_hub/utils/_http.py.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote, urlsplit

from pydantic import Field, TypeAdapter, ValidationError

from pod.net import integrity
from pod.net.hubs import Request, request_for
from pod.util.env import nearest
from podkiln.config.fields import Revision, SafePath
from podkiln.lock.resolve.errors import (
    AccessDeniedError,
    FileMetadata,
    RefusedError,
    UnclearError,
    UnreachableError,
)
from podkiln.lock.resolve.http import Shape, checked
from podkiln.lock.validation import AnySha256, Size, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pod.net.hubs import Hubs
    from podkiln.config.model import ModelFile
    from podkiln.lock.resolve.http import Reply, Web

_PATH: Final = TypeAdapter(SafePath)
_LARGEST_IN_GIT: Final = 32 << 20  # bytes; the hub wants LFS from 10 MB on
_MOST_NAMES: Final = 1000  # that are looked at for one that was meant
_LONGEST_NAME: Final = 300
_OFFLINE: Final = frozenset({"1", "on", "yes", "true"})


def is_offline() -> bool:
    """Whether the environment says that the hub is not to be asked."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _OFFLINE


class _Lfs(Shape):
    """What LFS knows of a file."""

    sha256: AnySha256
    size: Size


class _Sibling(Shape):
    """One file of a listing."""

    rfilename: Text
    size: Annotated[int, Field(ge=0)] | None = None
    blob_id: Revision | None = Field(None, alias="blobId")
    lfs: _Lfs | None = None


class _Listing(Shape):
    """The files of a repository at a commit; each is looked at when it is asked for."""

    sha: Revision
    siblings: list[Any]
    gated: Any = False
    card_data: Any = Field(None, alias="cardData")

    def names(self) -> Iterable[str]:
        """Return the names of the files."""
        rows = (row.get("rfilename") for row in self.siblings if isinstance(row, dict))
        return (name for name in rows if isinstance(name, str) and len(name) <= _LONGEST_NAME)

    @cached_property
    def rows(self) -> Mapping[Any, Any]:
        """What is said of each file, by its name; the first where it is told twice."""
        rows = [row for row in self.siblings if isinstance(row, dict)]
        return {name: row for row in reversed(rows) if isinstance(name := row.get("rfilename"), str)}


@dataclass(frozen=True)
class Repository:
    """A repository at a commit: the names of its files, and the front matter of its card."""

    commit: str
    names: tuple[str, ...]
    gated: bool
    card: Mapping[str, Any]


class HuggingFace:
    """The hub, with one listing asked for a repository and revision."""

    def __init__(self, hubs: Hubs, web: Web) -> None:
        self.host = urlsplit(hubs.huggingface).netloc
        self._hubs = hubs
        self._web = web
        self._listings: dict[tuple[str, str], _Listing | Exception] = {}

    def find(self, file: ModelFile) -> FileMetadata:
        """Return what the hub knows of a file.

        Raises UnreachableError, UnclearError, AccessDeniedError, RefusedError.
        """
        return self.file(str(file.huggingface), str(file.path), file.revision or "main")

    def file(self, repo: str, path: str, revision: str) -> FileMetadata:
        """Return what the hub knows of a file of a repository at a revision. Raises as `find` does."""
        try:
            _PATH.validate_python(path)
        except ValidationError:
            raise UnclearError(f"{self.host} lists {path!r} in {repo}, which is no path of a file") from None
        listing = self._listing(repo, revision)
        row = listing.rows.get(path)
        if row is None:
            near = nearest(path, list(islice(listing.names(), _MOST_NAMES)))
            meant = f"; there is {near!r}" if near else ""
            raise RefusedError(f"{repo} has no file {path!r} at {revision}{meant}")
        if isinstance(row.get("lfs"), dict) and row["lfs"].get("size") == 0:
            raise RefusedError(f"{path} of {repo} is empty")
        sibling = checked(_Sibling, row, f"what {self.host} says of {path} in {repo}")
        if sibling.lfs is not None:
            return FileMetadata(listing.sha, sibling.lfs.size, sibling.lfs.sha256)
        content = self._fetch(repo, sibling, listing.sha)
        return FileMetadata(listing.sha, len(content), hashlib.sha256(content).hexdigest())

    def repository(self, repo: str) -> Repository:
        """Return what the hub knows of a repository's main branch. Raises as `find` does."""
        listing = self._listing(repo, "main")
        self._listings.setdefault((repo, listing.sha), listing)
        card = listing.card_data if isinstance(listing.card_data, dict) else {}
        return Repository(listing.sha, tuple(listing.names()), bool(listing.gated), card)

    def _listing(self, repo: str, revision: str) -> _Listing:
        """Ask for a listing once a run; a failure is remembered too."""
        if (repo, revision) not in self._listings:
            try:
                self._listings[repo, revision] = self._ask(repo, revision)
            except (UnreachableError, UnclearError, AccessDeniedError, RefusedError) as failure:
                self._listings[repo, revision] = failure
        found = self._listings[repo, revision]
        if isinstance(found, Exception):
            raise found
        return found

    def _ask(self, repo: str, revision: str) -> _Listing:
        if is_offline():
            raise UnreachableError(self.host, "HF_HUB_OFFLINE is set")
        if "--" in repo or ".." in repo:
            raise RefusedError(f"{repo!r} is not the name of a repository")
        api = f"{self._hubs.huggingface}/api/models/{quote(repo)}"
        url = f"{api}/revision/{quote(revision, safe='')}?blobs=true"
        page = f"{self._hubs.huggingface}/{repo}"

        def use(reply: Reply) -> _Listing:
            self._refuse(reply, repo, revision)
            return checked(_Listing, reply.json(), f"what {self.host} says of {repo}")

        return self._web.ask(Request(url, page, self._hubs.credential("HF_TOKEN"), "HF_TOKEN"), use)

    def _fetch(self, repo: str, sibling: _Sibling, commit: str) -> bytes:
        """Fetch a small file; git's own hash of it is in the listing."""
        name = sibling.rfilename
        if sibling.blob_id is None or sibling.size is None:
            raise UnclearError(f"{self.host} gives neither sha256 nor git's hash of {name} in {repo}")
        if not sibling.size:
            raise RefusedError(f"{name} of {repo} is empty")
        if sibling.size > _LARGEST_IN_GIT:
            raise UnclearError(
                f"{self.host} gives no sha256 of {name} in {repo}, which has {sibling.size} bytes"
            )
        source = {"kind": "huggingface", "repo": repo, "path": name, "revision": commit}

        def use(reply: Reply) -> bytes:
            self._refuse(reply, repo, commit)
            expected = f"git:{sibling.blob_id}"
            if integrity.digest((reply.body,), len(reply.body), expected) != expected:
                raise UnclearError(f"{name} of {repo} came damaged from {self.host}")
            return reply.body

        return self._web.ask(request_for(source, self._hubs), use, most=sibling.size)

    def _refuse(self, reply: Reply, repo: str, revision: str) -> None:
        """Turn the hub's refusals into ours. Raises AccessDeniedError, RefusedError."""
        status, code = reply.status, reply.headers.get("X-Error-Code", "")
        if status == HTTPStatus.OK:
            return
        if code == "GatedRepo":
            page = f"{self._hubs.huggingface}/{repo}"
            raise AccessDeniedError(f"{repo} is gated: accept its licence at {page} and set HF_TOKEN")
        if code == "RevisionNotFound":
            raise RefusedError(f"{repo} has no revision {revision!r}")
        if code == "RepoNotFound" or (status == HTTPStatus.NOT_FOUND and not code):
            raise RefusedError(
                f"{self.host} has no repository {repo}, or it is private and HF_TOKEN may not read it"
            )
        said = reply.headers.get("X-Error-Message", "")
        if status == HTTPStatus.FORBIDDEN and "disabled" in said.lower():
            raise RefusedError(f"{self.host} has disabled {repo}: choose another source")
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            if self._hubs.hf_token:
                raise AccessDeniedError(
                    f"{self.host} refused HF_TOKEN for {repo} ({status}): set a valid one"
                )
            raise AccessDeniedError(f"{self.host} requires a login for {repo} ({status}): set HF_TOKEN")
        raise RefusedError(f"{self.host} answered {status} for {repo}")
