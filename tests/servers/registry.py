"""A registry that misbehaves as told: the distribution API in memory, with a script of faults.

What works is tested against the real one (tests/container/test_push.py); this one is for what goes wrong.
"""

from __future__ import annotations

import base64
import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    import ssl

    from servers.registry_http import Server

Kind = Literal[
    "nothing",
    "status",  # answers `status` at once, the body unread
    "cut",  # a connection reset after `after` bytes of the request's body
    "torn",  # ends the connection after `after` bytes of an answer's body
    "whole",  # answers a range with all of the blob
    "mute",  # does what is asked, then cuts the connection without an answer
    "hang",  # answers nothing for `seconds`
    "slow",  # waits for `seconds`, then goes on as always
    "stale",  # answers with the manifest that the tag named before
    "unmounted",  # answers that a blob was mounted, and does not know it
    "drip",  # begins an answer that never ends, a byte at a time
    "huge",  # begins an answer that never ends, as fast as it can
    "flip",  # stores the first byte of an upload as another one
    "short",  # keeps `after` bytes of an upload, and says so
    "forget",  # forgets all uploads, then goes on as always
    "expire",  # no token that was given until now is good any longer, this request's included
    "swap",  # answers with other content than was asked for
    "claim",  # names a wrong digest in Docker-Content-Digest
    "refuse-mount",  # begins an upload instead
]


@dataclass
class Fault:
    """What befalls requests of a method whose path holds `match`, `times` times (-1: always)."""

    kind: Kind
    method: str = ""
    match: str = ""
    times: int = 1
    after: int = 0
    status: int = 503
    code: str = ""
    retry_after: str | None = None
    seconds: float = 3.0


@dataclass(frozen=True)
class Hit:
    """One request as it came in."""

    where: str
    method: str
    path: str
    authorization: str | None


@dataclass
class Registry:
    """The state of the registry, and how it is set up.

    Attributes:
        auth: How it wants a login: not at all, basic, or bearer with its own token service.
        locations: How upload URLs are given: absolute, relative, on another origin, as plain http, or with
            a fragment.
        redirect_blobs: Send readers of blobs to the other origin.
        token_life: What tokens are said to live, in seconds.
        resumable: Tell the state of uploads when asked.
        chunk_least, chunk_most: What is said of the lengths of chunks; a longer PATCH gets 416.
        body_most: Bytes of a request's body that a proxy before it takes; a longer one gets 413.
        body_cut: A stream that is longer is cut off, without an answer.
        immutable: How a tag that is there is kept from moving: STATUS CODE, as `400 TAG_INVALID`.
    """

    auth: Literal["none", "basic", "bearer"] = "none"
    user: str = "me"
    password: str = "s3cret"
    identity_token: str = ""
    locations: Literal["absolute", "relative", "elsewhere", "plain", "fragment"] = "absolute"
    redirect_blobs: bool = False
    token_life: int = 300
    resumable: bool = True
    chunk_least: int = 0
    chunk_most: int = 0
    body_most: int = 0
    body_cut: bool = False
    immutable: str = ""
    tls: ssl.SSLContext | None = None
    faults: list[Fault] = field(default_factory=list)
    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    before: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    tokens: dict[str, list[str]] = field(default_factory=dict)
    hits: list[Hit] = field(default_factory=list)
    received: int = 0  # bytes of uploads, thrown away ones included
    lock: threading.RLock = field(default_factory=threading.RLock)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    servers: dict[str, Server] = field(default_factory=dict)

    def __enter__(self) -> Self:
        from servers.registry_http import Server

        for where in ("registry", "elsewhere"):
            self.servers[where] = Server(self, where)
            threading.Thread(target=self.servers[where].serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def host(self, where: str = "registry") -> str:
        """Return host:port; `elsewhere` is another origin with the same content."""
        return f"127.0.0.1:{self.servers[where].server_address[1]}"

    def url(self, where: str = "registry") -> str:
        """Return scheme and host."""
        return f"{'https' if self.tls else 'http'}://{self.host(where)}"

    def take(self, method: str, path: str) -> Fault | None:
        """Return what befalls a request, and count it."""
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and fault.match in path:
                    fault.times -= 1
                    return fault
        return None

    def count(self, received: int) -> None:
        """Count bytes of uploads."""
        with self.lock:
            self.received += received

    def admits(self, authorization: str | None, path: str) -> bool:
        """Tell whether a login is good for a path."""
        if self.auth == "basic":
            return authorization == self.basic()
        token = (authorization or "").removeprefix("Bearer ")
        repository = path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        scopes = self.tokens.get(token)
        return scopes is not None and (not repository or any(f":{repository}:" in scope for scope in scopes))

    def basic(self) -> str:
        """Return the header of the right user and password."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def asked(self, method: str, match: str = "") -> list[Hit]:
        """Return the requests of a method whose path holds `match`."""
        return [hit for hit in self.hits if hit.method == method and match in hit.path]
