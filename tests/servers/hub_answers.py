"""How the local hub answers: the routes, the redirects, the ranges, and the faults of the script."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from servers.base import QuietHandler, QuietServer

if TYPE_CHECKING:
    from servers.hub import Hub
    from servers.hub_content import Buffer, HubFile, Repository
    from servers.hub_faults import Fault

BLOCK = 16 * 1024
PAGE = b"<!DOCTYPE html><html><body>Please log in.</body></html>"


@dataclass
class Hit:
    """One request: `file` is the name of the file it was answered with, `sent` its bytes that left.

    `peer` is the client's port, which tells connections apart.
    """

    where: str
    method: str
    path: str
    range: str | None
    authorization: str | None
    status: int = 0
    file: str = ""
    sent: int = 0
    peer: int = 0


class Server(QuietServer):
    """The hub's or the CDN's port."""

    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: Hub, where: str) -> None:
        super().__init__(address, Handler)
        self.hub = hub
        self.where = where


class Handler(QuietHandler):
    """One connection."""

    server: Server
    hit: Hit
    faults: dict[str, Fault]

    def setup(self) -> None:
        # a small send buffer, so that `sent` is close to what the client got
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * BLOCK)
        super().setup()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub, where = self.server.hub, self.server.where
        path = unquote(urlsplit(self.path).path)
        self.hit = Hit(where, self.command, self.path, self.headers["Range"], self.headers["Authorization"])
        self.hit.peer = self.client_address[1]
        if path == "/_hits":
            self._json(200, [asdict(hit) for hit in hub.hits])
            return
        hub.hits.append(self.hit)
        self.faults = hub.script.take(where, self.path)
        if status := self.faults.get("status"):
            self._json(status.status, {"error": "scripted"}, status.headers())
        elif body := self.faults.get("body"):
            self._send(200, body.body, {"Content-Type": "application/json; charset=utf-8", **body.headers()})
        elif "html" in self.faults:
            self._send(200, PAGE, {"Content-Type": "text/html; charset=utf-8"})
        elif where == "cdn":
            self._from_cdn(path)
        else:
            self._route(path)

    def _route(self, path: str) -> None:
        routes = (
            (r"/api/v1/model-versions/(\d+)", self._civitai_info),
            (r"/api/v1/models/(\d+)", self._civitai_model),
            (r"/api/download/models/(\d+)", self._civitai_download),
            (r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", self._tree),
            (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", self._model_info),
            (r"/files/(.+)", self._plain),
            (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._resolve),
        )
        for pattern, handler in routes:
            if match := re.fullmatch(pattern, path):
                handler(*match.groups())
                return
        self._json(404, {"error": "Not Found"})

    # --- Hugging Face

    def _repository(self, name: str) -> Repository | None:
        """The repository, or None once the refusal has been sent (the hub answers 401 for unknown ones)."""
        repository = self.server.hub.repositories.get(name)
        if repository is None:
            self._json(401, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return repository

    def _commit(self, repository: Repository, revision: str | None) -> str | None:
        commit = repository.commit(revision or "main")
        if commit is None:
            self._json(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    def _model_info(self, name: str, revision: str | None) -> None:
        if (repository := self._repository(name)) and (commit := self._commit(repository, revision)):
            blobs = "blobs" in parse_qs(urlsplit(self.path).query)
            self._json(200, repository.info(commit, blobs=blobs))

    def _tree(self, name: str, revision: str) -> None:
        if (repository := self._repository(name)) and (commit := self._commit(repository, revision)):
            self._json(200, [file.tree_entry() for file in repository.commits[commit].values()])

    def _resolve(self, name: str, revision: str, path: str) -> None:
        if not (repository := self._repository(name)):
            return
        if repository.token and self.headers["Authorization"] != f"Bearer {repository.token}":
            status = 403 if self.headers["Authorization"] else 401
            self._json(status, {"error": "gated"}, {"X-Error-Code": repository.error_code})
            return
        if not (commit := self._commit(repository, revision)):
            return
        file = repository.commits[commit].get(path)
        head = {"X-Repo-Commit": commit}
        if file is None:
            self._json(404, {"error": "Entry not found"}, {**head, "X-Error-Code": "EntryNotFound"})
        elif file.lfs:
            head |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
            self._redirect(file, {**head, "ETag": f'"{file.sha256}"'})
        else:
            self._file(file, file.git_etag(), head)

    # --- CivitAI

    def _civitai_info(self, number: str) -> None:
        version = self.server.hub.versions.get(int(number))
        if version is None:
            self._json(404, {"error": f"No model with id {number}"})
        else:
            self._json(200, version.info(self.server.hub.url))

    def _civitai_model(self, number: str) -> None:
        infos = [version.info(self.server.hub.url) for version in self.server.hub.versions.values()]
        found = [info for info in infos if info["modelId"] == int(number)]
        newest = sorted(found, key=lambda info: -info["id"])
        self._json(200 if newest else 404, {"id": int(number), "modelVersions": newest})

    def _civitai_download(self, number: str) -> None:
        version = self.server.hub.versions.get(int(number))
        if version is None:
            self._json(404, {"error": "not found"})
        elif version.archived:
            self._json(410, {"error": "archived"})
        elif version.token and self.headers["Authorization"] != f"Bearer {version.token}":
            self._json(401, {"error": "The creator requires you to be logged in"})
        elif self.command == "HEAD":
            self._json(401, {"error": "Unauthorized"})  # as the real one does, with a valid token too
        else:
            file = version.asked(parse_qs(urlsplit(self.path).query))
            self._redirect(file, {}) if file else self._json(404, {"error": "no such file"})

    # --- files

    def _redirect(self, file: HubFile, head: dict[str, str]) -> None:
        signed = f"{file.sha256}/{quote(file.name)}?X-Signature=signed-{file.sha256[:8]}"
        location = f"{self.server.hub.cdn_url}/{signed}"
        status = 307 if "X-Linked-Etag" not in head else 302
        self._send(status, b"", {**head, "Location": location})

    def _from_cdn(self, path: str) -> None:
        hub = self.server.hub
        commits = [files for repository in hub.repositories.values() for files in repository.commits.values()]
        stored = [file for files in commits for file in files.values()]
        stored += [file for version in hub.versions.values() for file, _, _ in version.files()]
        found = next((file for file in stored if path == f"/{file.sha256}/{file.name}"), None)
        if found is None:
            self._json(404, {"error": "NoSuchKey"})
        elif self.headers["Authorization"]:
            self._json(400, {"error": "Only one auth mechanism allowed"})  # what S3 answers
        else:
            self._file(found, found.storage_etag(), {})

    def _plain(self, path: str) -> None:
        file = self.server.hub.files.get(path)
        if file is None:
            self._json(404, {"error": "not found"})
            return
        called = self.server.hub.called.get(path)
        head = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(called)}"} if called else {}
        self._file(file, file.storage_etag(), head)

    def _file(self, file: HubFile, etag: str, head: dict[str, str]) -> None:
        """Send a file or the range that was asked, with what the script does to it."""
        self.hit.file = file.name
        if "etag" in self.faults:
            etag = etag[:-2] + ('0"' if etag[-2] != "0" else '1"')
        content: Buffer = file.content
        if flip := self.faults.get("flip"):
            content = content[: flip.after] + bytes([content[flip.after] ^ 1]) + content[flip.after + 1 :]
        if longer := self.faults.get("long-file"):
            content = content[:] + b"\0" * longer.after
        head = {"ETag": etag, "Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **head}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"] or "")
        fresh = self.headers["If-Range"] in (None, etag) or "ignore-if-range" in self.faults
        if not asked or not fresh or "ignore-range" in self.faults:
            self._send(200, memoryview(content), head)
            return
        shift = self.faults["wrong-range"].after if "wrong-range" in self.faults else 0
        start, stop = int(asked[1]) + shift, min(int(asked[2] or len(content)) + 1 + shift, len(content))
        if start >= len(content):
            self._send(416, b"", {**head, "Content-Range": f"bytes */{len(content)}"})
            return
        head["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(206, memoryview(content)[start:stop], head)

    def _json(self, status: int, value: Any, head: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(head or {})})

    def _send(self, status: int, body: bytes | memoryview, head: dict[str, str]) -> None:
        self.hit.status = status
        short = self.faults["short-length"].after if "short-length" in getattr(self, "faults", {}) else 0
        self.send_response(status)
        for key, value in {**head, "Content-Length": str(len(body) + short)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self._body(memoryview(body))
        if short:
            self.close_connection = True

    def _body(self, body: memoryview) -> None:
        """Send block by block, as slowly as asked, up to where the script cuts."""
        faults = getattr(self, "faults", {})
        end = next((faults[kind].after for kind in ("cut", "reset", "hang") if kind in faults), None)
        rate = faults["rate"].rate if "rate" in faults else self.server.hub.rate
        for start in range(0, len(body), BLOCK):
            block = body[start : start + BLOCK if end is None else min(start + BLOCK, end)]
            if not block:
                break
            self.wfile.write(block)
            self.hit.sent += len(block)
            if rate:
                time.sleep(len(block) / rate)
        if end is None:
            return
        self.close_connection = True
        if "hang" in faults:
            self.server.hub.closing.wait(60)
        if "reset" in faults:
            self.reset()
