"""Files without a listed hash: the hub is asked once for commit and hash, and the answer is cached."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pod.net.http import RefusedError
from pod.net.hubs import Request, request_for
from pod.resolve import civitai
from pod.resolve.hub_client import HubClient
from pod.resolve.remembered import is_commit_of, is_pinned
from pod.resolve.resolved_cache import FILES, ResolvedCache
from pod.util.dataclass import asdict, dataclass
from pod.util.pickles import is_pickle
from pod.util.stated import is_count

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pod.model_refs.models_json import ModelFile
    from pod.net.hubs import Hubs
    from pod.net.transfer_policy import TransferPolicy
    from pod.resolve.civitai import Version
    from pod.resolve.model_facts import Facts

_EXPECTED = re.compile(r"sha256:[0-9a-f]{64}|git:[0-9a-f]{40}")
_FEW_TRIES = 2  # where the volume's record will do: a pod that is offline should not wait long
_REVISION = re.compile(r"[\w./-]{1,200}")


@dataclass(frozen=True)
class Resolved:
    """What a file must turn out to be: `expected` is `sha256:…`, or `git:…` for a small file outside LFS."""

    expected: str
    size: int | None
    revision: str | None = None


class Resolver:
    """Asks the hubs, each thing once a run, and remembers the answers for all later runs."""

    def __init__(
        self,
        path: Path,
        hubs: Hubs,
        policy: TransferPolicy,
        halted: threading.Event,
        facts: Facts,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.hubs = hubs
        self._say = say
        self.facts = facts
        self.pins = ResolvedCache(path)
        self.asker = HubClient(policy, halted)

    def resolve(
        self, file: ModelFile, note: Callable[[str], None], record: Resolved | None = None
    ) -> Resolved:
        """Return what to expect of a file. Raises RefusedError.

        Where a commit is stated, the bytes are, and the volume's record of them (`record`, or its own) counts
        only while the hub does not say what they are.
        """
        if is_pickle(file.name) and not file.vouched:
            raise RefusedError(
                "is a pickle, which can run code when it is loaded: choose a .safetensors file, or vouch for "
                "it by adding its hash, #sha256=…"
                if file.wish
                else "is a pickle, which can run code when it is loaded, and no hash of it is listed: "
                "put its size and sha256 into its model's description, then rebuild the image"
            )
        if file.sha256:
            return Resolved(f"sha256:{file.sha256}", file.size, file.source.get("revision"))
        key = _key(file.source)
        known = _remembered(self.pins.get(FILES, key))
        if not (known and _agrees(known, file.source)):
            known = record
        if known and not is_pinned(file.wish.source if file.wish else file.source):
            return known
        try:
            resolved = self._ask(file, note, _FEW_TRIES if known else None)
        except RefusedError as error:
            if known is None:
                raise
            self._say(
                f"{file.label} {error}; so {known.expected} is expected, as the volume's record has it, "
                "which whoever writes the volume can change: add #sha256=… to be sure"
            )
            return known
        self.pins.put(FILES, key, asdict(resolved))
        return resolved

    def size(self, file: ModelFile, revision: str | None, note: Callable[[str], None]) -> int | None:
        """Ask a file's source how many bytes it has, before one of another size is hashed for hours.

        Returns None where the source does not say.
        """
        try:
            return self.asker.size(request_for(file.source, self.hubs, revision), note, _FEW_TRIES)
        except RefusedError:
            return None

    def pin(self, source: Mapping[str, Any], resolved: Resolved) -> None:
        """Remember what is known of a source without asking for it."""
        self.pins.put(FILES, _key(source), asdict(resolved))

    def civitai(self, version: int, note: Callable[[str], None]) -> tuple[Version, str, list[str]]:
        """Return what CivitAI says of a version, its page, and what is to be said. Raises RefusedError."""
        page = f"{self.hubs.civitai}/model-versions/{version}"
        url = f"{self.hubs.civitai}/api/v1/model-versions/{version}"
        info = self.asker.json(
            Request(url, page, self.hubs.credential("CIVITAI_TOKEN"), "CIVITAI_TOKEN"), note
        )
        found = civitai.read(info, page, version)
        return found, page, self.facts.terms.check_version(found, page, token=self.has_token)

    @property
    def has_token(self) -> bool:
        """Whether CivitAI is asked with a token."""
        return self.hubs.civitai_token is not None

    def _from_civitai(self, source: Mapping[str, Any], note: Callable[[str], None]) -> Resolved:
        version, page, said = self.civitai(source["version"], note)
        row = self.facts.terms.choose(version, source, page)
        said += self.facts.terms.check_file(row, page, token=self.has_token)
        if row.unsafe:
            raise RefusedError(
                f"is a pickle at {page}, which can run code when it is loaded, and no hash of it is listed: "
                "choose a .safetensors version, or put its sha256 into its model's description"
            )
        sha256 = civitai.sha256(row, page, "put one into its model's description")
        for sentence in said:
            note(sentence)
        return Resolved(f"sha256:{sha256}", None)  # sizeKB is rounded

    def _ask(self, file: ModelFile, note: Callable[[str], None], tries: int | None) -> Resolved:
        source, hubs = file.source, self.hubs
        page = ""
        try:
            match source.get("kind"):
                case "huggingface":
                    page = f"{hubs.huggingface}/{source['repo']}"
                    revision = quote(source.get("revision") or "main", safe="")
                    api = f"{hubs.huggingface}/api/models/{quote(source['repo'])}"
                    url = f"{api}/revision/{revision}?blobs=true"
                    request = Request(url, page, hubs.credential("HF_TOKEN"), "HF_TOKEN")
                    return _from_huggingface(self.asker.json(request, note, tries), source["path"], page)
                case "civitai":
                    return self._from_civitai(source, note)
        except (KeyError, TypeError, AttributeError) as error:
            raise RefusedError(f"cannot be resolved: {page} answered without {error}") from None
        raise RefusedError("has no listed sha256, and its source gives none: put one into its description")


def _key(source: Mapping[str, Any]) -> str:
    if source.get("kind") == "huggingface":
        return f"huggingface:{source['repo']}@{source.get('revision') or 'main'}/{source['path']}"
    number = f"+{source['file']}" if source.get("file") else ""
    return f"{source.get('kind')}:{source.get('version')}{number}"


def _remembered(record: Any) -> Resolved | None:
    """Return what a hub said, or a volume's record of it; None where it is of another shape."""
    if not isinstance(record, dict) or record.keys() != {"expected", "size", "revision"}:
        return None
    expected, size, revision = record["expected"], record["size"], record["revision"]
    if not isinstance(expected, str) or not _EXPECTED.fullmatch(expected):
        return None
    if size is not None and not is_count(size):
        return None
    if revision is not None and not (isinstance(revision, str) and _REVISION.fullmatch(revision)):
        return None
    return Resolved(expected, size, revision)


def _agrees(known: Resolved, source: Mapping[str, Any]) -> bool:
    """Tell whether a record keeps to what the source states of itself: its commit, if it names one."""
    if source.get("kind") != "huggingface":
        return known.revision is None and known.expected.startswith("sha256:")
    return is_commit_of(source.get("revision") or "main", known.revision)


def _from_huggingface(info: Mapping[str, Any], path: str, page: str) -> Resolved:
    for sibling in info.get("siblings") or ():
        if sibling["rfilename"] == path:
            lfs = sibling.get("lfs")
            expected = f"sha256:{lfs['sha256']}" if lfs else f"git:{sibling['blobId']}"
            found = _remembered({"expected": expected, "size": sibling["size"], "revision": info["sha"]})
            if found is None or found.revision is None:
                raise RefusedError(f"cannot be resolved: {page} names no hash, size or commit of it")
            return found
    raise RefusedError(f"is not in {page}: {path} was renamed or removed there; correct its source")
