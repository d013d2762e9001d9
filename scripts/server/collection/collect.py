"""Facts of a model: asked of its hub, or read from a folder here; no weights are fetched.

Of Hugging Face: the listing of a commit, the few JSON files and heads that detection wants. Of CivitAI: the
version, and the head of its file. The listing of a gated repository is public, its files are not.
API: https://huggingface.co/docs/hub/api, https://developer.civitai.com/site/reference
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.parse import quote

from pod.net import integrity
from pod.net.http import NotFoundError, RefusedError
from pod.net.hubs import Request, request_for
from pod.resolve import civitai, safetensors_header
from pod.util.dataclass import dataclass, field, replace
from pod.util.printable import shown
from server.collection import card as cards
from server.collection.reference import MAIN, Reference, WordError, parse
from server.detection.detect import detect, wanted, with_base_files
from server.detection.facts import CivitaiFacts, Facts, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pod.net.hubs import Hubs
    from pod.resolve.civitai import Terms
    from pod.resolve.hub_client import HubClient
    from pod.resolve.safetensors_header import SafetensorsHeader
    from server.detection.decision import Decision
    from server.detection.knowledge import Knowledge

    Note = Callable[[str], None]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MOST_FILES = 20_000
_LARGEST_DOCUMENT = 8 << 20  # bytes
_DAMAGED = ("is not a valid .safetensors file", "cannot be looked into")
_ROUNDS = 3
"""Of asking what is wanted: the index, then what it leads to."""


@dataclass(frozen=True)
class Found:
    """A decision and what it was made from.

    `source` is where its files are, as in models.json, pinned: with the commit, or a version's number and
    query; `revision` is that commit, "" for none. `base` is what its base was found to be, where that was
    looked at.
    """

    decision: Decision
    facts: Facts
    revision: str = ""
    remarks: tuple[str, ...] = field(default=())
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)
    base: Found | None = field(default=None, repr=False)


class Collector:
    """Asks hubs and folders.

    Args:
        hubs: Addresses and tokens.
        asker: Asks patiently, each thing once.
        known: What detection knows.
        terms: What CivitAI's signals mean.
        note: Is told why something takes long.
        here: Returns the local source of a repository on Hugging Face that is here whole, None for the hub's.
    """

    def __init__(
        self,
        hubs: Hubs,
        asker: HubClient,
        known: Knowledge,
        terms: Terms,
        note: Note,
        here: Callable[[Mapping[str, Any]], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        self._hubs, self._asker, self._known, self._terms, self._note = hubs, asker, known, terms, note
        self._here = here
        self._listed: dict[tuple[str, str], Mapping[str, Any]] = {}

    def inspect(self, meant: Reference, base_model: str = "") -> Found:
        """Return what a model is, with the sizes of its base. Raises RefusedError, OSError."""
        source, facts, remarks = self._facts(meant)
        facts = self._completed(replace(facts, base_model=base_model), source)
        decision, base = detect(facts, self._known), None
        if decision.served and decision.base and decision.kind != "checkpoint":
            name = decision.base.repository
            try:
                base = self.look(self._of_base(name, base_model))
                decision = with_base_files(decision, facts, base.facts, self._known)
                remarks += base.remarks
            except RefusedError as error:
                remarks.append(f"its base {name} {error}")
        return _found(decision, facts, source, remarks, base)

    def _of_base(self, word: str, given: str) -> Reference:
        """Return which base is meant; at the commit that is locked, unless a person named the base."""
        found = _base(word, given)
        pinned = {} if word == given else self._known.pinned(found.source.get("repo", ""))
        if not pinned or found.source["revision"] != MAIN:
            return found
        return replace(found, source={**found.source, "revision": pinned["revision"]})

    def look(self, meant: Reference) -> Found:
        """Return what a model alone is, without its base. Raises RefusedError, OSError."""
        source, facts, remarks = self._facts(meant)
        facts = self._completed(facts, source)
        return _found(detect(facts, self._known), facts, source, remarks)

    def _facts(self, meant: Reference) -> tuple[Mapping[str, Any], Facts, list[str]]:
        """Return where the files are, and the first facts of them."""
        try:
            match meant.kind:
                case "huggingface":
                    if local := self._here(meant.source):
                        return local, _local(Reference(meant.word, local)), []
                    return self._huggingface(meant)
                case "civitai":
                    return self._civitai(meant)
                case "local":
                    return meant.source, _local(meant), []
                case _:
                    name = meant.source["url"].partition("?")[0].partition("#")[0].rpartition("/")[2]
                    return meant.source, Facts(meant.word, (File(name),), name), []
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise RefusedError(
                "cannot be looked into: its hub answered in a form that is not known "
                f"({shown(repr(error), 80)})"
            ) from None

    # --- Hugging Face

    def _huggingface(self, meant: Reference) -> tuple[Mapping[str, Any], Facts, list[str]]:
        repo, revision = meant.source["repo"], meant.source["revision"]
        api = f"{self._hubs.huggingface}/api/models/{quote(repo)}"
        url = f"{api}/revision/{quote(revision, safe='')}?blobs=true"
        page = f"{self._hubs.huggingface}/{repo}"
        info = self._asker.json(Request(url, page, self._hubs.credential("HF_TOKEN"), "HF_TOKEN"), self._note)
        if not _COMMIT.fullmatch(str(info["sha"])):  # a folder is called by it
            raise RefusedError(f"cannot be looked into: {page} is not told by its commit")
        if _COMMIT.fullmatch(revision) and info["sha"] != revision:
            raise RefusedError(f"cannot be looked into: {page} answers with another commit, {info['sha']}")
        rows = [row for row in info["siblings"][:_MOST_FILES] if isinstance(row["rfilename"], str)]
        self._listed[repo, str(info["sha"])] = {row["rfilename"]: row for row in rows}
        files = tuple(File(row["rfilename"], _count(row.get("size"))) for row in rows)
        chosen = meant.source.get("path", "")
        if chosen and all(file.path != chosen for file in files):
            raise NotFoundError(f"names {chosen}, which {page} does not have")
        data = info.get("cardData")
        facts = Facts(
            meant.word,
            files,
            chosen,
            repository=repo,
            gated=bool(info.get("gated")),
            token=self._hubs.hf_token is not None,
            card=cards.of_data(data) if isinstance(data, dict) else None,
        )
        return {"kind": "huggingface", "repo": repo, "revision": str(info["sha"])}, facts, []

    # --- CivitAI

    def _civitai(self, meant: Reference) -> tuple[Mapping[str, Any], Facts, list[str]]:
        source = dict(meant.source)
        said: list[str] = []
        if "version" not in source:
            source["version"], said = self._newest(source["model"])
        number = source["version"]
        page = f"{self._hubs.civitai}/model-versions/{number}"
        version = civitai.read(self._ask_civitai(f"model-versions/{number}", page), page, number)
        if source.get("model") not in {None, version.model}:
            raise NotFoundError(f"names a version of another model: {number} belongs to {version.model}")
        said += self._terms.check_version(version, page, token=self._hubs.civitai_token is not None)
        row = self._terms.choose(version, source, page)
        if not ("file" in source or "format" in source.get("choice", {})):
            row = civitai.safer(version, row)
        base = version.raw.get("baseModel")
        told = CivitaiFacts(version.type, row.type, base if isinstance(base, str) else "")
        facts = Facts(meant.word, (File(row.name, row.size),), row.name, civitai=told)
        return {**source, "query": civitai.query(row)}, facts, said

    def _newest(self, model: int) -> tuple[int, list[str]]:
        """Return the newest version of a model. Raises RefusedError."""
        page = f"{self._hubs.civitai}/models/{model}"
        versions = self._ask_civitai(f"models/{model}", page)["modelVersions"]
        if not versions:
            raise RefusedError(f"has no version at {page}")
        number = int(versions[0]["id"])
        return number, [f"it is the newest version, civitai:{model}@{number}: name it so to pin it"]

    def _ask_civitai(self, path: str, page: str) -> Any:
        credential = self._hubs.credential("CIVITAI_TOKEN")
        url = f"{self._hubs.civitai}/api/v1/{path}"
        return self._asker.json(Request(url, page, credential, "CIVITAI_TOKEN"), self._note)

    # --- what detection wants beside that

    def _completed(self, facts: Facts, source: Mapping[str, Any]) -> Facts:
        """Return facts with the JSON files and heads that are wanted. Raises RefusedError, OSError."""
        if facts.gated and not facts.token:
            return facts
        documents, headers = dict(facts.documents), dict(facts.headers)
        tried: set[str] = set()
        for _ in range(_ROUNDS):
            asked = wanted(facts)
            for path in (each for each in asked.documents if each not in tried):
                documents[path] = self._document(path, source)
            for path in (each for each in asked.headers if each not in tried):
                if (head := self._header(path, source)) is not None:
                    headers[path] = head
            if tried.issuperset((*asked.documents, *asked.headers)):
                break
            tried.update((*asked.documents, *asked.headers))
            facts = replace(facts, documents=documents, headers=headers)
        return facts

    def _document(self, path: str, source: Mapping[str, Any]) -> Any:
        if source["kind"] == "local":
            return _json(Path(source.get("folder") or Path(source["file"]).parent) / path)
        try:
            request = request_for({**source, "path": path}, self._hubs)
            return self._asker.json(request, self._note, is_right=self._as_listed(source, path))
        except RefusedError as error:
            if str(error).startswith("cannot be resolved"):
                return None  # no JSON
            raise

    def _as_listed(self, source: Mapping[str, Any], path: str) -> Callable[[bytes], bool]:
        """Return what tells whether a file's bytes are those that its repository lists."""
        listed = self._listed.get((source.get("repo", ""), source.get("revision", "")), {})
        row = listed.get(path, {})
        lfs = row.get("lfs")
        expected = f"sha256:{lfs.get('sha256')}" if isinstance(lfs, dict) else f"git:{row.get('blobId')}"
        if expected == "git:None":
            return lambda _: True
        return lambda content: integrity.digest((content,), len(content), expected) == expected

    def _header(self, path: str, source: Mapping[str, Any]) -> SafetensorsHeader | None:
        """Return the head of a file; None where it has none. Raises RefusedError, OSError."""
        try:
            if source["kind"] == "local":
                file = Path(source["file"]) if "file" in source else Path(source["folder"]) / path
                return safetensors_header.read(file)
            return self._asker.header(request_for({**source, "path": path}, self._hubs), self._note)
        except RefusedError as error:
            if str(error).startswith(_DAMAGED):
                return None
            raise


def _found(
    decision: Decision,
    facts: Facts,
    source: Mapping[str, Any],
    remarks: list[str],
    base: Found | None = None,
) -> Found:
    return Found(decision, facts, str(source.get("revision", "")), tuple(remarks), source, base)


def _base(word: str, given: str) -> Reference:
    """Return what a base is called: what a person gave may be a folder here too, what files tell may not."""
    try:
        found = parse(word)
    except WordError as error:
        raise RefusedError(str(error)) from None
    if found.kind == "huggingface" or word == given:
        return found
    raise RefusedError("is no repository: set BASE_MODEL")


def _local(meant: Reference) -> Facts:
    """Return the facts of a folder or file; links to files are followed. Raises OSError."""
    if "file" in meant.source:
        file = Path(meant.source["file"])
        return Facts(meant.word, (File(file.name, file.stat().st_size),), file.name)
    folder = Path(meant.source["folder"])
    files: list[File] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and len(files) < _MOST_FILES:
                files.append(File(path.relative_to(folder).as_posix(), path.stat().st_size))
    readme = folder / "README.md"
    text = readme.read_bytes()[: cards.LONGEST].decode(errors="replace") if readme.is_file() else ""
    return Facts(
        meant.word,
        tuple(files),
        meant.source.get("path", ""),
        repository=meant.source.get("repo", ""),
        card=cards.of_text(text),
    )


def _json(path: Path) -> Any:
    """Return a JSON file that is here; None for what is none. Raises OSError."""
    if not path.is_file() or path.stat().st_size > _LARGEST_DOCUMENT:
        return None
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
