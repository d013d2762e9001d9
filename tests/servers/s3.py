"""An S3 for tests: moto's server, and before it the check of signed addresses that moto leaves out.

    tests/servers/s3.py

A process of its own, since moto is not among what the tests run in. Prints its port. It knows one key, and
has one bucket, and another that is called by the month, as the runpod SDK has it.
POST /_faults/STATUS/COUNT answers the next COUNT writes so; GET /_parts tells the sizes of what was written.
What it refuses, S3 refuses: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html (which
address is signed), .../ErrorResponses.html (with which code), .../mpUploadUploadPart.html (parts of 5 MB at
least, moto's own).
"""

from __future__ import annotations

import contextlib
import hmac
import json
import subprocess
import sys
import threading
import time
import urllib.request
from calendar import timegm
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEY_ID, SECRET = "AKIAOFTHETESTS", "the-secret-key-of-the-tests"
BUCKET = "pictures"
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
_STATUS = {200: "200 OK", 403: "403 Forbidden", 500: "500 Internal Server Error", 503: "503 Slow Down"}


@dataclass(frozen=True)
class S3:
    """The server, seen from a test."""

    url: str

    def fail(self, status: int, count: int) -> None:
        """Let it answer the next writes so."""
        request = urllib.request.Request(f"{self.url}/_faults/{status}/{count}", b"", method="POST")
        urllib.request.urlopen(request, timeout=10).close()

    def written(self) -> list[int]:
        """Return the sizes of what was written since this was asked last, in bytes: a part counts as one."""
        with urllib.request.urlopen(f"{self.url}/_parts", timeout=10) as answer:
            return list(json.load(answer))


@contextlib.contextmanager
def serve(environment: dict[str, str]) -> Iterator[S3]:
    """Run it in an environment in which there is moto."""
    argv = [sys.executable, "-P", __file__]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield S3(f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


class _Gate:
    """What stands before moto."""

    def __init__(self, behind: Callable[..., Iterable[bytes]]) -> None:
        self._behind = behind
        self._faults: list[int] = []
        self._sizes: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path, method = urlsplit(environ["RAW_URI"]).path, environ["REQUEST_METHOD"]
        if path == "/_parts":
            with self._lock:
                told, self._sizes = self._sizes, []
            return _answer(start, 200, json.dumps(told))
        if path.startswith("/_faults/"):
            _, _, status, count = path.split("/")
            self._faults = [int(status)] * int(count)
            return _answer(start, 200, "")
        if code := _refused(environ):
            return _answer(start, 403, _ERROR.format(code=code))
        if method == "PUT":
            with self._lock:
                if self._faults:
                    return _answer(start, self._faults.pop(), _ERROR.format(code="SlowDown"))
                self._sizes.append(int(environ.get("CONTENT_LENGTH") or 0))
        return self._behind(environ, start)


def _answer(start: Callable[..., Any], status: int, text: str) -> list[bytes]:
    start(_STATUS[status], [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [text.encode()]


def _refused(environ: dict[str, Any]) -> str | None:
    """Return the code that S3 refuses a signed address with."""
    parts = urlsplit(environ["RAW_URI"])
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "X-Amz-Signature" not in query:
        return "AccessDenied"
    key_id, day, region, service, end = query["X-Amz-Credential"].split("/")
    if key_id != KEY_ID:
        return "InvalidAccessKeyId"
    begun = timegm(time.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
    if time.time() > begun + int(query["X-Amz-Expires"]) or int(query["X-Amz-Expires"]) > 604_800:
        return "AccessDenied"
    signed = query["X-Amz-SignedHeaders"]
    named = {
        name: environ.get(
            "HTTP_" + name.upper().replace("-", "_"), environ.get(name.upper().replace("-", "_"), "")
        )
        for name in signed.split(";")
    }
    rest = sorted((quote(k, safe=""), quote(v, safe="")) for k, v in query.items() if k != "X-Amz-Signature")
    canonical = "\n".join(
        (
            environ["REQUEST_METHOD"],
            parts.path,
            "&".join(f"{name}={value}" for name, value in rest),
            *(f"{name}:{value}" for name, value in named.items()),
            "",
            signed,
            "UNSIGNED-PAYLOAD",
        )
    )
    scope = f"{day}/{region}/{service}/{end}"
    text = "\n".join(("AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, sha256(canonical.encode()).hexdigest()))
    key = f"AWS4{SECRET}".encode()
    for part in (day, region, service, end, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return None if hmac.compare_digest(key.hex(), query["X-Amz-Signature"]) else "SignatureDoesNotMatch"


def main() -> None:
    """Serve until ended."""
    from moto.s3.models import s3_backends
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    for name in (BUCKET, time.strftime("%m-%y")):
        s3_backends["123456789012"]["aws"].create_bucket(name, "us-east-1")
    behind = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, _Gate(behind), threaded=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
