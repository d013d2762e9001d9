"""Files whose hash nobody listed: the hub is asked once which commit and which hash, and that is kept.

Kept in `$WORKSPACE/.podkiln/resolved.json`, so that the next start fetches, and expects, the same bytes.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pod.claim import Claim
from pod.contents import is_pickle
from pod.patience import Patience, Policy
from pod.progress import write_json
from pod.sources import Hubs, Request
from pod.web import RefusedError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pod.listing import File

_LARGEST_ANSWER = 64 << 20


@dataclass(frozen=True)
class Resolved:
    """What a file must turn out to be: `expected` is `sha256:…`, or `git:…` for a small file outside LFS."""

    expected: str
    size: int | None
    revision: str | None = None


class Resolver:
    """Asks the hubs, each thing once a run, and remembers the answers for all later runs."""

    def __init__(self, path: Path, hubs: Hubs, policy: Policy, halted: threading.Event) -> None:
        self._path = path
        self._hubs = hubs
        self._policy = policy
        self._halted = halted
        self._lock = threading.Lock()
        self._answers: dict[str, Any] = {}

    def resolve(self, file: File, note: Callable[[str], None]) -> Resolved:
        """Return what to expect of a file. Raises RefusedError, OSError."""
        if file.sha256:
            return Resolved(f"sha256:{file.sha256}", file.size, file.source.get("revision"))
        if is_pickle(file.name):
            raise RefusedError(
                "is a pickle, which can run code when it is loaded, and no hash of it is listed: "
                "put its size and sha256 into its model's description, then rebuild the image"
            )
        with self._lock:
            key = _key(file)
            if known := self._remembered().get(key):
                return Resolved(**known)
            resolved = self._ask(file, note)
            self._remember(key, resolved)
            return resolved

    def _ask(self, file: File, note: Callable[[str], None]) -> Resolved:
        source, hubs = file.source, self._hubs
        try:
            match source.get("kind"):
                case "huggingface":
                    revision = quote(source.get("revision") or "main", safe="")
                    api = f"{hubs.huggingface}/api/models/{quote(source['repo'])}"
                    url = f"{api}/revision/{revision}?blobs=true"
                    page = f"{hubs.huggingface}/{source['repo']}"
                    request = Request(url, page, hubs.credential("HF_TOKEN"), "HF_TOKEN")
                    return _from_huggingface(self._json(request, note), source["path"], page)
                case "civitai":
                    url = f"{hubs.civitai}/api/v1/model-versions/{source['version']}"
                    page = f"{hubs.civitai}/model-versions/{source['version']}"
                    request = Request(url, page, hubs.credential("CIVITAI_TOKEN"), "CIVITAI_TOKEN")
                    return _from_civitai(self._json(request, note), page)
        except (KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"cannot be resolved: {page} answered without {error}") from None
        raise RefusedError("has no listed sha256, and its source knows none: put one into its description")

    def _json(self, request: Request, note: Callable[[str], None]) -> Any:
        """Ask once a run: twenty files of one repository are one question, and one failure."""
        if request.url not in self._answers:
            try:
                self._answers[request.url] = self._patiently(request, note)
            except RefusedError as error:
                self._answers[request.url] = error
        answer = self._answers[request.url]
        if isinstance(answer, RefusedError):
            raise answer
        return answer

    def _patiently(self, request: Request, note: Callable[[str], None]) -> Any:
        patience = Patience(self._policy, self._halted, note)
        while not self._halted.is_set():
            try:
                with request.send(self._policy.limits) as answer:
                    return json.loads(answer.read(_LARGEST_ANSWER))
            except TransientError as error:
                patience.wait(error)
            except ValueError:
                raise RefusedError(f"cannot be resolved: {request.page} did not answer with JSON") from None
        raise RefusedError("was not resolved before the stop")

    def _remembered(self) -> dict[str, Any]:
        try:
            files = json.loads(self._path.read_bytes())["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}

    def _remember(self, key: str, resolved: Resolved) -> None:
        """Add to the file; another pod on this volume may be adding too."""
        claim = Claim(self._path.with_name("resolved.lock"))
        end = time.monotonic() + 2.0  # then without: what gets lost is only asked again
        while not (owned := claim.acquire()) and time.monotonic() < end:
            time.sleep(0.05)
        try:
            write_json(self._path, {"schema": 1, "files": {**self._remembered(), key: asdict(resolved)}})
        finally:
            if owned:
                claim.release()


def _key(file: File) -> str:
    source = file.source
    if source.get("kind") == "huggingface":
        return f"huggingface:{source['repo']}@{source.get('revision') or 'main'}/{source['path']}"
    return f"{source.get('kind')}:{source.get('version')}"


def _from_huggingface(info: Mapping[str, Any], path: str, page: str) -> Resolved:
    for sibling in info.get("siblings") or ():
        if sibling["rfilename"] == path:
            lfs = sibling.get("lfs")
            expected = f"sha256:{lfs['sha256']}" if lfs else f"git:{sibling['blobId']}"
            return Resolved(expected, sibling["size"], info["sha"])
    raise RefusedError(f"is not in {page}: {path} was renamed or removed there; correct its source")


def _from_civitai(info: Mapping[str, Any], page: str) -> Resolved:
    if (info.get("model") or {}).get("mode") == "Archived" or not info.get("files"):
        raise RefusedError(f"was archived at {page} and cannot be had any more; choose another version")
    if (until := info.get("earlyAccessEndsAt")) and until > time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()):
        raise RefusedError(f"is in early access until {until} at {page}: wait, or buy access there")
    file = next((row for row in info["files"] if row.get("primary")), info["files"][0])
    if (file.get("metadata") or {}).get("format") == "PickleTensor" or is_pickle(file["name"]):
        raise RefusedError(
            f"is a pickle at {page}, which can run code when it is loaded, and no hash of it is listed: "
            "choose a .safetensors version, or put its sha256 into its model's description"
        )
    sha256 = (file.get("hashes") or {}).get("SHA256")
    if not sha256:
        raise RefusedError(f"has no sha256 at {page} yet: put one into its model's description")
    return Resolved(f"sha256:{sha256.lower()}", None)  # sizeKB is rounded
