"""What can go wrong between a pod and a hub, as a script the local hub plays."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "cut",  # the connection closes after `after` bytes of the body
    "reset",  # the same, with a TCP RST
    "status",  # answers `status`, with `retry_after` and `rate_limit` if given
    "ignore-range",  # 200 and the whole file, whatever was asked
    "short-length",  # Content-Length promises `after` bytes more than are sent
    "long-file",  # claims, and sends, a file that is `after` bytes longer
    "html",  # 200 with a web page
    "body",  # 200 with `body`, whatever that is
    "rate",  # `rate` bytes a second
    "hang",  # nothing more after `after` bytes of the body
    "flip",  # the byte at offset `after` of the file is another one
    "etag",  # another ETag than before
    "ignore-if-range",  # 206 although If-Range does not fit
    "wrong-range",  # 206 with the bytes `after` further on
]


@dataclass
class Fault:
    """One thing that goes wrong, `times` times (-1: always), where the path holds `match`."""

    kind: Kind
    match: str = ""
    where: Literal["hub", "cdn"] = "cdn"
    times: int = 1
    skip: int = 0
    after: int = 0
    status: int = 503
    retry_after: str | None = None
    rate_limit: str | None = None
    error_code: str | None = None
    location: str | None = None
    error_message: str | None = None
    encoding: str | None = None
    rate: int = 0
    body: bytes = b""

    def headers(self) -> dict[str, str]:
        """What a scripted status says besides its number."""
        pairs = {
            "Retry-After": self.retry_after,
            "RateLimit": self.rate_limit,
            "X-Error-Code": self.error_code,
            "X-Error-Message": self.error_message,
            "Location": self.location,
            "Content-Encoding": self.encoding,
        }
        return {key: value for key, value in pairs.items() if value is not None}


@dataclass
class Script:
    """The faults still to be played."""

    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, where: str, path: str) -> dict[str, Fault]:
        """Return what befalls this request, at most one fault of a kind, and count it."""
        taken: dict[str, Fault] = {}
        with self.lock:
            for fault in self.faults:
                if fault.where != where or fault.match not in path or not fault.times or fault.kind in taken:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                taken[fault.kind] = fault
        return taken
