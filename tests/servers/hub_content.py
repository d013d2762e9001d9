"""What the local hub has to offer: repositories with commits, CivitAI versions, plain files."""

from __future__ import annotations

import hashlib
import json
import mmap
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping

Buffer = bytes | mmap.mmap
GIT_LFS_POINTER_BYTES = 134
_BLOCK = 1 << 20


@dataclass(frozen=True)
class HubFile:
    """One file: its bytes, and the names by which the hub and git know them."""

    path: str
    content: Buffer = field(repr=False)
    lfs: bool
    sha256: str
    git_oid: str

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    def git_etag(self) -> str:
        """The ETag of a file that lies in git itself."""
        return f'"{self.git_oid}"'

    def storage_etag(self) -> str:
        """The ETag that the storage behind the CDN gives: it is not the sha256 there either."""
        return f'"{self.sha256[:32]}"'

    def sibling(self) -> dict[str, Any]:
        """The row of `/api/models/…?blobs=true`."""
        row: dict[str, Any] = {"rfilename": self.path, "size": self.size, "blobId": self.git_oid}
        if self.lfs:
            row["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": GIT_LFS_POINTER_BYTES}
        return row

    def tree_entry(self) -> dict[str, Any]:
        """The row of `/api/models/…/tree/…`."""
        row: dict[str, Any] = {"type": "file", "path": self.path, "size": self.size, "oid": self.git_oid}
        if self.lfs:
            row["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": GIT_LFS_POINTER_BYTES}
        return row


def make_file(path: str, content: Buffer | Path, *, lfs: bool = True) -> HubFile:
    """Hash what lies in memory, or in a file (which is mapped, not read)."""
    if isinstance(content, Path):
        with content.open("rb") as handle:
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    git = hashlib.sha1(b"blob %d\0" % len(content), usedforsecurity=False)
    git.update(content)
    return HubFile(path, content, lfs, hashlib.sha256(content).hexdigest(), git.hexdigest())


def generate(size: int, seed: int = 0, *, safetensors: bool = True) -> bytes:
    """Make `size` bytes that are the same for one seed; by default a valid .safetensors file of U8."""
    noise = random.Random(seed)
    if not safetensors:
        return _bytes(noise, size)
    payload = size
    while True:  # the header names the payload's size, and its own length depends on that
        tensor = {"noise": {"dtype": "U8", "shape": [payload], "data_offsets": [0, payload]}}
        header = json.dumps(tensor, separators=(",", ":")).encode()
        excess = 8 + len(header) + payload - size
        if excess <= 0:
            break
        payload -= excess
    if payload < 0:
        raise ValueError(f"{size} bytes are too few for a .safetensors file")
    header += b" " * -excess  # the format lets a header be padded with spaces
    return len(header).to_bytes(8, "little") + header + _bytes(noise, payload)


def tensors(*names: str, size: int = 64, seed: int = 0, metadata: Mapping[str, str] | None = None) -> bytes:
    """Make a valid .safetensors file with tensors of these names, `size` bytes each."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for number, name in enumerate(names):
        span = [number * size, (number + 1) * size]
        entries[name] = {"dtype": "U8", "shape": [size], "data_offsets": span}
    header = json.dumps(entries, separators=(",", ":")).encode()
    return len(header).to_bytes(8, "little") + header + _bytes(random.Random(seed), size * len(names))


def _bytes(noise: random.Random, size: int) -> bytes:
    return b"".join(noise.randbytes(min(_BLOCK, size - start)) for start in range(0, size, _BLOCK))


class Repository:
    """A model repository: every `put` is a commit, and old commits stay reachable."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.commits: dict[str, dict[str, HubFile]] = {}
        self.head = ""
        self.token: str | None = None  # gated for everybody without it
        self.error_code = "GatedRepo"
        self.card: dict[str, Any] | None = None  # the front matter of its README, as the API gives it

    def put(self, file: HubFile) -> str:
        """Add or replace a file; returns the new commit (40 hex digits)."""
        files = {**self.commits.get(self.head, {}), file.path: file}
        listing = json.dumps(sorted((f.path, f.sha256) for f in files.values()))
        seed = f"{self.head} {listing}".encode()
        self.head = hashlib.sha1(seed, usedforsecurity=False).hexdigest()
        self.commits[self.head] = files
        return self.head

    def commit(self, revision: str) -> str | None:
        """The commit behind a branch or commit name, if there is one."""
        if revision == "main":
            return self.head
        return revision if revision in self.commits else None

    def info(self, commit: str, *, blobs: bool) -> dict[str, Any]:
        """What `/api/models/…` answers."""
        files = sorted(self.commits[commit].values(), key=lambda file: file.path)
        return {
            "_id": self.head[:24],
            "id": self.name,
            "modelId": self.name,
            "sha": commit,
            "private": False,
            "gated": "manual" if self.token else False,
            **({"cardData": self.card} if self.card else {}),
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [file.sibling() if blobs else {"rfilename": file.path} for file in files],
        }


@dataclass
class CivitaiVersion:
    """A model version on CivitAI: its main file, and `beside` it others, each with its type and format.

    `model` is half the version's number unless given; `scan` is what CivitAI's scanners said. `fields` are
    further ones of the version's answer, `row` those of each file.
    """

    number: int
    file: HubFile
    token: str | None = None
    archived: bool = False
    early_access_ends: str | None = None
    format: str = "SafeTensor"
    type: str = "Checkpoint"
    model: int | None = None
    scan: str = "Success"
    beside: tuple[tuple[HubFile, str, str], ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> list[tuple[HubFile, str, str]]:
        """All files, with type and format, the main one first."""
        return [(self.file, "Model", self.format), *self.beside]

    def asked(self, query: Mapping[str, list[str]]) -> HubFile | None:
        """The file that a download's query names."""
        wanted = {key: values[0] for key, values in query.items() if key in {"type", "format"}}
        numbers = query.get("fileId")
        for number, (file, type_, format_) in enumerate(self.files()):
            if numbers and numbers != [str(self.number * 10 + number)]:
                continue
            if wanted.items() <= {"type": type_, "format": format_}.items():
                return file
        return None

    def info(self, base: str) -> dict[str, Any]:
        """What `/api/v1/model-versions/{id}` answers; hashes are in upper case there, sizes in KB."""
        rows = [
            {
                "id": self.number * 10 + number,
                "name": file.name,
                "type": type_,
                "sizeKB": file.size / 1024,
                "primary": number == 0,
                "metadata": {"format": format_, "fp": "fp16", "size": "pruned"},
                "pickleScanResult": self.scan,
                "virusScanResult": "Success",
                "hashes": {"SHA256": file.sha256.upper()},
                "downloadUrl": f"{base}/api/download/models/{self.number}"
                + (f"?{urlencode({'type': type_, 'format': format_})}" if number else ""),
                **self.row,
            }
            for number, (file, type_, format_) in enumerate(self.files())
        ]
        return {
            "id": self.number,
            "modelId": self.number // 2 if self.model is None else self.model,
            "name": "v1",
            "baseModel": "SDXL 1.0",
            "earlyAccessEndsAt": self.early_access_ends,
            "model": {"name": "fake", "type": self.type, "mode": "Archived" if self.archived else None},
            "files": [] if self.archived else rows,
            **self.fields,
        }
