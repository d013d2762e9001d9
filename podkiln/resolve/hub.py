"""Sizes, hashes and commits from Hugging Face, by its own client.

Files in LFS (and Xet) come with their sha256 in the listing. Small ones lie in git itself and have only git's
SHA-1, so they are fetched and hashed, at the commit that the listing was made for.
Source: https://huggingface.co/docs/huggingface_hub/package_reference/hf_api (model_info, files_metadata).
"""

from __future__ import annotations

import difflib
import hashlib
import os
import tempfile
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from podkiln.resolve import web
from podkiln.resolve.answer import Found, RefusedError, UnreachableError, WithheldError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

    from podkiln.model import ModelFile

ENDPOINT = "https://huggingface.co"
_SECONDS = 20.0


class HuggingFace:
    """The hub, with one listing asked for a repository and revision."""

    def __init__(self, endpoint: str | None = None, token: str | None = None) -> None:
        self.endpoint = (endpoint or os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
        self.host = urlsplit(self.endpoint).netloc
        self._token = token or os.environ.get("HF_TOKEN") or None
        self._client: HfApi | None = None
        self._listings: dict[tuple[str, str], ModelInfo] = {}

    def find(self, file: ModelFile) -> Found:
        """Return what the hub knows of a file. Raises UnreachableError, WithheldError, RefusedError."""
        repo, revision = str(file.huggingface), file.revision or "main"
        info = self._listing(repo, revision)
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        sibling = siblings.get(str(file.path))
        if sibling is None:
            near = difflib.get_close_matches(str(file.path), siblings, n=1)
            meant = f"; there is {near[0]!r}" if near else ""
            raise RefusedError(f"{repo} has no file {file.path!r} at {revision}{meant}")
        if sibling.lfs is not None:
            return Found(info.sha, sibling.lfs.size, sibling.lfs.sha256)
        content = self._fetch(repo, sibling, str(info.sha))
        return Found(info.sha, len(content), hashlib.sha256(content).hexdigest())

    def _api(self) -> HfApi:
        """Make the client at its first use: its import takes longer than everything else here."""
        if self._client is None:
            from huggingface_hub import HfApi  # noqa: PLC0415
            from huggingface_hub.utils.tqdm import disable_progress_bars  # noqa: PLC0415

            disable_progress_bars()  # for files of a few kB
            self._client = HfApi(endpoint=self.endpoint, token=self._token)
        return self._client

    def _listing(self, repo: str, revision: str) -> ModelInfo:
        if (repo, revision) not in self._listings:
            with self._sentences(repo, revision):
                self._listings[repo, revision] = self._api().model_info(
                    repo, revision=revision, files_metadata=True, timeout=_SECONDS
                )
        return self._listings[repo, revision]

    def _fetch(self, repo: str, sibling: RepoSibling, commit: str) -> bytes:
        """Fetch a small file; git's own hash of it is in the listing."""
        with tempfile.TemporaryDirectory(prefix="podkiln-lock-") as scratch, self._sentences(repo, commit):
            path = self._api().hf_hub_download(repo, sibling.rfilename, revision=commit, local_dir=scratch)
            content = Path(path).read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        if blob != sibling.blob_id:
            raise UnreachableError(self.host, f"{sibling.rfilename} of {repo} came damaged")
        return content

    @contextmanager
    def _sentences(self, repo: str, revision: str) -> Iterator[None]:
        """Turn the client's errors into ours."""
        import httpx2  # noqa: PLC0415 - the client's own transport: what it raises is part of its interface
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            yield
        except errors.GatedRepoError:
            page = f"{self.endpoint}/{repo}"
            raise WithheldError(f"{repo} is gated: accept its licence at {page} and set HF_TOKEN") from None
        except errors.RepositoryNotFoundError:
            missing = f"{self.host} knows no repository {repo}, or it is private and HF_TOKEN may not read it"
            raise RefusedError(missing) from None
        except errors.RevisionNotFoundError:
            raise RefusedError(f"{repo} has no revision {revision!r}") from None
        except errors.HFValidationError:
            raise RefusedError(f"{repo!r} is no name of a repository") from None
        except errors.HfHubHTTPError as answered:
            raise self._by_status(answered.response.status_code, repo) from None
        except errors.OfflineModeIsEnabled:
            raise UnreachableError(self.host, "HF_HUB_OFFLINE is set") from None
        except (httpx2.HTTPError, errors.LocalEntryNotFoundError) as silent:
            raise UnreachableError(self.host, str(silent).partition("\n")[0] or "no answer") from None

    def _by_status(self, status: int, repo: str) -> Exception:
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            return WithheldError(f"{self.host} refused HF_TOKEN for {repo} ({status}): set a valid one")
        if web.later(status):
            return UnreachableError(self.host, f"it answered {status}")
        return RefusedError(f"{self.host} answered {status} for {repo}")
