"""How the misbehaving registry answers: the requests of the distribution specification, and the faults."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from servers.base import CutError, QuietHandler, QuietServer
from servers.registry import Fault, Hit

if TYPE_CHECKING:
    from servers.registry import Registry


def sha256(data: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Server(QuietServer):
    """One of the registry's two origins."""

    def __init__(self, registry: Registry, where: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.registry = registry
        self.where = where
        if registry.tls:
            self.socket = registry.tls.wrap_socket(self.socket, server_side=True)


class Handler(QuietHandler):
    """One connection."""

    server: Server

    def do_any(self) -> None:
        """Play what the script has for this request, or answer it."""
        self.registry = self.server.registry
        self.body_read = "chunked" not in self.headers.get("Transfer-Encoding", "") and not int(
            self.headers.get("Content-Length", 0)
        )
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        authorization = self.headers.get("Authorization")
        self.registry.hits.append(Hit(self.server.where, self.command, self.path, authorization))
        self.fault = self.registry.take(self.command, self.path) or Fault("nothing")
        try:
            if self._misbehave():
                return
            if url.path == "/token":
                self._token()
            elif self.server.where == "registry" and not self._admitted(authorization, url.path):
                self._challenge()
            else:
                self._route(url.path)
            self.wfile.flush()
        except CutError:
            self.reset()

    def _admitted(self, authorization: str | None, path: str) -> bool:
        return self.registry.auth == "none" or self.registry.admits(authorization, path)

    def _misbehave(self) -> bool:
        """Play faults that come before the answer; True when there is no other one."""
        fault = self.fault
        if fault.kind == "status":
            headers = {"Retry-After": fault.retry_after} if fault.retry_after is not None else {}
            self._error(fault.status, fault.code or "SCRIPTED", headers)
            return True
        if fault.kind == "cut" and self.command != "PATCH":
            raise CutError
        if fault.kind == "hang":
            time.sleep(fault.seconds)
            raise CutError
        if fault.kind in ("drip", "huge"):
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            while True:
                self.wfile.write(b" " * (1 if fault.kind == "drip" else 1 << 20))
                time.sleep(0.02 if fault.kind == "drip" else 0)
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        if self._is_too_long():
            return self._refuse_length()
        if fault.kind == "forget":
            self.registry.uploads.clear()
        if fault.kind == "expire":
            self.registry.tokens.clear()
        return False

    def _is_too_long(self) -> bool:
        """Tell whether a proxy would refuse the body; of a stream it takes some before it does."""
        most = self.registry.body_most
        streamed = "chunked" in self.headers.get("Transfer-Encoding", "")
        return bool(most) and (streamed or int(self.headers.get("Content-Length", 0)) > most)

    def _refuse_length(self) -> bool:
        if self.registry.body_cut and "chunked" in self.headers.get("Transfer-Encoding", ""):
            raise CutError
        self._error(413, "")
        return True

    def _route(self, path: str) -> None:
        if path == "/v2/":
            return self._answer(200, b"{}")
        repository, found, rest = path.removeprefix("/v2/").partition("/blobs/uploads/")
        if found:
            return self._upload(repository, rest)
        repository, found, digest = path.removeprefix("/v2/").partition("/blobs/")
        if found:
            return self._blob(repository, digest)
        repository, _, name = path.removeprefix("/v2/").partition("/manifests/")
        return self._manifest(repository, name)

    def _blob(self, repository: str, digest: str) -> None:
        if self.registry.redirect_blobs and self.server.where == "registry":
            return self._answer(307, headers={"Location": self.registry.url("elsewhere") + self.path})
        data = self.registry.blobs.get((repository, digest))
        if data is None:
            return self._error(404, "BLOB_UNKNOWN")
        if self.fault.kind == "swap":
            data = bytes(reversed(data)) + (b"" if self.command == "GET" else b"more")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if not start or self.fault.kind == "whole":
            return self._answer(200, data)
        return self._answer(
            206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        )

    def _manifest(self, repository: str, name: str) -> None:
        if self.command == "PUT":
            data = self._body()
            document = json.loads(data)
            index = "manifests" in document
            known = self.registry.manifests if index else self.registry.blobs
            named = document["manifests"] if index else [document["config"], *document["layers"]]
            missing = [each["digest"] for each in named if (repository, each["digest"]) not in known]
            if missing or (":" in name and sha256(data) != name):
                return self._error(400, "MANIFEST_BLOB_UNKNOWN" if missing else "DIGEST_INVALID")
            held = self.registry.manifests.get((repository, name))
            if held and self.registry.immutable and ":" not in name:
                status, code = self.registry.immutable.split(" ", 1)
                return self._error(int(status), code)
            if held:
                self.registry.before[repository, name] = held
            self.registry.manifests[repository, name] = (self.headers["Content-Type"], data)
            return self._answer(201, headers={"Docker-Content-Digest": sha256(data)})
        if (repository, name) not in self.registry.manifests:
            return self._error(404, "MANIFEST_UNKNOWN")
        media_type, data = self.registry.manifests[repository, name]
        if self.fault.kind == "stale":
            media_type, data = self.registry.before[repository, name]
        claim = "sha256:" + "0" * 64 if self.fault.kind == "claim" else sha256(data)
        data = data.replace(b"}", b" }") if self.fault.kind in ("swap", "claim") else data
        if self.fault.kind == "swap":
            claim = sha256(data)
        return self._answer(200, data, {"Content-Type": media_type, "Docker-Content-Digest": claim})

    def _upload(self, repository: str, number: str) -> None:
        if self.command == "POST":
            return self._begin(repository)
        upload = self.registry.uploads.get(number)
        if upload is None:
            self._body()
            return self._error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "PATCH":
            self._receive(upload)
        elif self.command == "PUT":
            return self._commit(repository, number, upload)
        elif self.command == "DELETE":
            del self.registry.uploads[number]
            return self._answer(204)
        elif not self.registry.resumable:
            return self._error(405, "UNSUPPORTED")
        end = max(len(upload) - 1, 0)
        headers = {"Location": self._location(repository, number), "Range": f"0-{end}"}
        return self._answer(202 if self.command == "PATCH" else 204, headers=headers)

    def _begin(self, repository: str) -> None:
        source = (self.query.get("from", ""), self.query.get("mount", ""))
        if self.fault.kind == "unmounted":
            return self._answer(201)
        if source in self.registry.blobs and self.fault.kind != "refuse-mount":
            self.registry.blobs[repository, source[1]] = self.registry.blobs[source]
            return self._answer(201)
        number = str(next(self.registry.numbers))
        self.registry.uploads[number] = bytearray()
        headers = {"Location": self._location(repository, number)}
        if self.registry.chunk_least:
            headers["OCI-Chunk-Min-Length"] = str(self.registry.chunk_least)
        if self.registry.chunk_most:
            headers["OCI-Chunk-Max-Length"] = str(self.registry.chunk_most)
        return self._answer(202, headers=headers)

    def _receive(self, upload: bytearray) -> None:
        """Take the body of a PATCH, as far as the script lets it come."""
        start = self.headers.get("Content-Range", "").partition("-")[0]
        if int(start or 0) != len(upload):  # without a range it begins at 0
            self._body()
            return self._error(416, "RANGE_INVALID")
        most = self.registry.chunk_most
        if most and int(self.headers.get("Content-Length", most + 1)) > most:
            return self._error(416, "RANGE_INVALID")
        taken = 0
        for block in self.blocks():
            if self.fault.kind == "cut":
                upload += block[: self.fault.after - taken]
                taken += len(block)
                if taken >= self.fault.after:
                    self.registry.count(self.fault.after)
                    raise CutError
            else:
                upload += block
                self.registry.count(len(block))
        if self.fault.kind == "short":
            del upload[self.fault.after :]
        if self.fault.kind == "flip":
            upload[0] ^= 1
        if self.fault.kind == "mute":
            raise CutError
        return None

    def _commit(self, repository: str, number: str, upload: bytearray) -> None:
        upload += self._body()
        del self.registry.uploads[number]
        if sha256(upload) != self.query["digest"]:
            return self._error(400, "DIGEST_INVALID")
        self.registry.blobs[repository, self.query["digest"]] = bytes(upload)
        if self.fault.kind == "mute":
            raise CutError
        claim = "sha256:" + "0" * 64 if self.fault.kind == "claim" else self.query["digest"]
        return self._answer(201, headers={"Docker-Content-Digest": claim})

    def _location(self, repository: str, number: str) -> str:
        path = f"/v2/{repository}/blobs/uploads/{number}?_state=signed%3D"
        origins = {
            "absolute": self.registry.url(),
            "relative": "",
            "elsewhere": self.registry.url("elsewhere"),
            "plain": f"http://{self.registry.host()}",
        }
        if self.registry.locations == "fragment":
            return self.registry.url() + path + "#fragment"
        return origins[self.registry.locations] + path

    def _token(self) -> None:
        form = self._body()
        if form:
            values = parse_qs(form.decode())
            good = values.get("refresh_token") == [self.registry.identity_token]
            scopes = values["scope"][0].split(" ")
        else:
            good = self.headers.get("Authorization") in (None, self.registry.basic())
            scopes = parse_qs(urlsplit(self.path).query)["scope"]
        if not good:
            return self._error(401, "UNAUTHORIZED")
        token = f"token-{next(self.registry.numbers)}"
        if self.headers.get("Authorization") or form:
            self.registry.tokens[token] = scopes
        else:  # without a login one may read
            self.registry.tokens[token] = [scope for scope in scopes if not scope.endswith("push")]
        key = "access_token" if form else "token"
        return self._answer(200, json.dumps({key: token, "expires_in": self.registry.token_life}).encode())

    def _challenge(self) -> None:
        realm = 'Basic realm="test"'
        if self.registry.auth == "bearer":
            realm = f'Bearer realm="{self.registry.url("elsewhere")}/token",service="test",scope="x"'
        self._error(401, "UNAUTHORIZED", {"WWW-Authenticate": realm})

    def _body(self) -> bytes:
        return b"".join(self.blocks()) if not self.body_read else b""

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": "as the script has it"}]}).encode()
        self._answer(status, body, headers)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._body()  # all of it, even for a no: closing on a client that still writes may lose the answer
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            if self.command != "HEAD":
                self.wfile.write(body[: self.fault.after] if self.fault.kind == "torn" else body)
        if self.fault.kind == "torn":
            self.close_connection = True


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
    setattr(Handler, f"do_{_method}", Handler.do_any)
