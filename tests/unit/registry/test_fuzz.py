"""Whatever stands in a registry's place answers: a value or one sentence, soon, and in little memory."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from fuzz import value_or_sentence
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from podkiln.build import engine
from podkiln.errors import RegistryError
from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.auth import Challenge
from podkiln.registry.credentials import Credentials
from podkiln.registry.errors import is_immutable, is_lost_upload, lacks_blob, retry_after, words
from podkiln.registry.headers import ChunkSizes, content_range, number, range_end
from podkiln.registry.http_client import MAX_ANSWER_BYTES, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

URL = "https://registry.example/v2/"
BLOB = spec.Descriptor(spec.LAYER, spec.digest_of(b"x"), 1)
MANY = settings(max_examples=150, deadline=5000)

NUMBERS = ["²", "٣", "9" * 6000, "-1", "+5", "1e9", "0x10", " 7 ", "", "1_000", "18446744073709551616", "0-²"]
NUMBERS += ["0-" + "9" * 6000, "bytes 0-5/*", "bytes 0-" + "9" * 6000 + "/6", "5-3", "--", "0-0"]
TIMES = [
    "Fri, 21 Nov 99999 10:00:00 GMT",
    "Mon, 99 Foo 0000 99:99:99 +9999999999",
    "0" * 3000,
    "Fri, 21 Nov 2025",
]
PLACES = [
    "http://[::1",
    "http://[::1]:99999/",
    "http://a:b:c/",
    "//",
    "http://",
    "\\\\x",
    "http://" + "a" * 70 + ".b/",
]
PLACES += [
    "http://\ud800/",
    "http://xn--/",
    "javascript:x",
    "?",
    "#",
    "http://me:pw@h/x#y",
    "/" * 3000,
    "http:///x",
    "http://²/",
]
CHALLENGES = [
    "Bearer realm=",
    "Bearer realm=http://[::1",
    'Basic realm="',
    "Bearer " * 5000,
    "," * 60_000,
    "a=" * 4000,
]
CHALLENGES += [
    'Bearer realm="' + "\\" * 8000,
    "Negotiate " + "a" * 60_000,
    'Bearer realm="https://²/",service="\ud800"',
]
TEXTS = st.text(max_size=60) | st.sampled_from([*NUMBERS, *TIMES, *PLACES, *CHALLENGES])

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.sampled_from([10**400, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "errors",
    "code",
    "message",
    "token",
    "access_token",
    "expires_in",
    "schemaVersion",
    "mediaType",
    "config",
]
KEYS += [
    "layers",
    "manifests",
    "digest",
    "size",
    "annotations",
    "platform",
    "variant",
    "os",
    "rootfs",
    "history",
]
KNOWN = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.lists(st.dictionaries(st.sampled_from(KEYS), JSON), max_size=2)
)
DEEP = [
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"errors":[' + b"[" * 900 + b"]" * 900 + b"]}",
    b"9" * 6000,
    b"<html>",
]
DEEP += [
    b'{"errors":[{"code":' + b"[" * 800 + b"]" * 800 + b"}]}",
    gzip.compress(b"x" * 100_000),
    b"\xff\xfe{",
]
BODIES = (
    st.binary(max_size=100)
    | (JSON | KNOWN).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(DEEP)
)


@MANY
@given(TEXTS)
@example("9" * 6000)
@example("²")
@example("0-" + "9" * 6000)
def test_any_number_in_a_header(text: str) -> None:
    found = [number(text), range_end(text), *content_range(text)]
    assert all(each is None or 0 <= each < 10**18 for each in found)
    sizes = ChunkSizes.of({"oci-chunk-min-length": text, "oci-chunk-max-length": text})
    assert sizes.usual > 0


@MANY
@given(TEXTS, TEXTS, st.integers(100, 599), BODIES)
@example("9" * 6000, "", 429, b"")
@example("Fri, 21 Nov 99999999999 10:00:00 GMT", "Fri, 21 Nov 2025 10:00:00 GMT", 503, b"")
@example("", "", 400, b'{"errors":[{"code":' + b"[" * 900 + b"]" * 900 + b"}]}")
def test_any_refusal(after: str, date: str, status: int, body: bytes) -> None:
    answer = Response(status, {"retry-after": after, "date": date}, body, URL)
    wait = retry_after(answer)
    assert wait is None or 0 <= wait <= 120
    said = words(answer)
    assert said.isprintable()
    assert len(said) < 250
    assert {is_lost_upload(answer), lacks_blob(answer), is_immutable(answer)} <= {True, False}


@MANY
@given(TEXTS)
@example('Bearer realm="' + 'a="\\' * 3000)
@example("a" * 60_000)
@example(" ," * 30_000)
def test_any_challenge(header: str) -> None:
    found = value_or_sentence(lambda: Challenge.parse(header))
    assert found is not None
    assert set(found) <= {"basic", "bearer"}


@MANY
@given(BODIES)
@example(
    b'{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:'
    + b"a" * 64
    + b'","size":1'
    + b"0" * 400
    + b"}}"
)
def test_any_document(data: bytes) -> None:
    for parse in (spec.Manifest.parse, spec.Index.parse, spec.ImageConfig.parse):
        found = value_or_sentence(lambda parse=parse: parse(data, "It"))  # type: ignore[misc]
        assert found is None or str(found)


@pytest.mark.parametrize("piece", [b"{},", b"[],", b'"ab",', b'{"a":0},', b"1e1,"])
def test_a_document_that_would_take_much_memory_is_refused(piece: bytes) -> None:
    data = b'{"a":[' + piece * (spec.MAX_MANIFEST_BYTES // len(piece)) + b"0]}"
    tracemalloc.start()
    assert value_or_sentence(lambda: spec.parse_json(data, "It")) is None
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


class Canned:
    """A server that answers every request with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.settimeout(1)
                asked = b""
                while b"\r\n\r\n" not in asked and (more := connection.recv(65536)):
                    asked += more
                connection.sendall(self.answer)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)


@pytest.fixture(scope="module")
def canned() -> Iterator[Canned]:
    server = Canned()
    yield server
    server.close()


def questions(repository: Repository) -> list[Callable[[], Any]]:
    return [
        repository.ping,
        lambda: repository.blob_exists(BLOB),
        lambda: repository.manifest("v1"),
        lambda: repository.blob(BLOB),
        lambda: b"".join(repository.read(BLOB)),
        lambda: repository.mount(BLOB, "a/b"),
        repository.initiate_upload,
        lambda: repository.upload_offset("/v2/a/blobs/uploads/1"),
        lambda: repository.send("/v2/a/blobs/uploads/1", [b"x"], (0, 1), "take it"),
        lambda: repository.commit("/v2/a/blobs/uploads/1", BLOB, "take it"),
        lambda: repository.put_manifest("v1", b"{}", spec.MANIFEST),
        lambda: repository.cancel_upload("/v2/a/blobs/uploads/1"),
    ]


def ask_everything(canned: Canned, answer: bytes, only: int | None = None) -> None:
    canned.answer = answer
    how = RegistryOptions(
        attempts=1, backoff=0.0, timeout=0.2, plain_http=True, login=lambda _: Credentials("me", "pw")
    )
    with Repository(Reference.parse(f"{canned.host}/a/b"), how, push=True) as repository:
        asked = questions(repository)
        for question in asked if only is None else [asked[only]]:
            value_or_sentence(question)


HEADERS = ["Content-Length", "Location", "Range", "Retry-After", "Date", "WWW-Authenticate", "Content-Range"]
HEADERS += [
    "Docker-Content-Digest",
    "Content-Type",
    "Content-Encoding",
    "Transfer-Encoding",
    "OCI-Chunk-Min-Length",
]
HEADERS += ["OCI-Chunk-Max-Length", "Link", "Set-Cookie", "Connection", ""]
STATUSES = [100, 101, 200, 201, 202, 204, 206, 301, 307, 400, 401, 403, 404, 409, 413, 416, 429, 503, 999]
LINES = st.tuples(st.sampled_from(HEADERS), TEXTS)


def message(status: Any, lines: list[tuple[str, str]], body: bytes) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode(errors="surrogatepass") + body


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 11), st.sampled_from(STATUSES), st.lists(LINES, max_size=4), BODIES)
def test_any_answer(
    canned: Canned, which: int, status: int, lines: list[tuple[str, str]], body: bytes
) -> None:
    ask_everything(canned, message(status, [*lines, ("Connection", "close")], body), which)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 11), st.binary(max_size=200))
def test_any_bytes(canned: Canned, which: int, data: bytes) -> None:
    ask_everything(canned, data, which)


ODD = [
    message(200, [("Content-Length", "9" * 6000)], b"{}"),
    message(200, [("Content-Length", "²")], b"{}"),
    message(200, [("Content-Length", "-5")], b"{}"),
    message(206, [("Content-Range", "bytes 0-" + "9" * 6000 + "/9")], b"x"),
    message(202, [("Location", "http://[::1")], b""),
    message(307, [("Location", "http://[::1")], b""),
    message(307, [("Location", "http://" + "a" * 70 + ".example/")], b""),
    message(202, [("Location", "http://127.0.0.1:99999/")], b""),
    message(204, [("Range", "0-" + "9" * 6000)], b""),
    message(401, [("WWW-Authenticate", 'Bearer realm="http://[::1"')], b""),
    message(401, [("WWW-Authenticate", "Bearer realm=http://²/")], b""),
    message(429, [("Retry-After", "9" * 6000)], b""),
    message(503, [("Retry-After", "Fri, 21 Nov 99999999999 10:00:00 GMT"), ("Date", "x")], b""),
    message(200, [("Content-Encoding", "gzip")], gzip.compress(b"[" * (8 << 20))),
    message(200, [("Content-Type", "text/html")], b"<html>log in</html>"),
    message(400, [], b'{"errors":' + b"[" * 100_000),
    message(200, [("Transfer-Encoding", "chunked")], b"9" * 6000 + b"\r\nx"),
    message(200, [("Transfer-Encoding", "chunked")], b"\xb2\r\nx"),
    message("²00", [], b""),
    message(200, [("X" * 70_000, "y")], b""),
    message(200, [("X", "y")] * 2000, b""),
    b"",
    b"\x16\x03\x01\x02\x00",
]


@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
def test_an_odd_answer(canned: Canned, answer: bytes) -> None:
    ask_everything(canned, answer)


def test_a_token_is_one_that_a_header_can_hold(canned: Canned) -> None:
    """The fake is its own token service: each request is answered with a challenge and a token."""
    for token in ("\\u2603", "\\ud800", "a b", "a\\r\\nb", "x" * 70_000):
        body = f'{{"token":"{token}"}}'.encode()
        realm = f'Bearer realm="http://{canned.host}/token"'
        ask_everything(canned, message(401, [("WWW-Authenticate", realm), ("Connection", "close")], body))


def test_a_web_page_is_said_to_be_one(canned: Canned) -> None:
    canned.answer = message(
        200, [("Content-Type", "text/html; charset=utf-8"), ("Connection", "close")], b"<html>"
    )
    how = RegistryOptions(attempts=1, timeout=0.5, plain_http=True, login=lambda _: None)
    with Repository(Reference.parse(f"{canned.host}/a/b"), how) as repository:
        for question in (lambda: repository.blob_exists(BLOB), lambda: repository.manifest("v1")):
            with pytest.raises(Exception, match="answered with a web page") as said:
                question()
            assert "login page" in str(said.value.hint)  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", ["http://[::1", "https://[::1]:x/", "https://h:x/"])
def test_a_redirect_to_what_is_no_address_is_said_to_be_one_and_not_tried_again(
    canned: Canned, place: str
) -> None:
    canned.answer = message(307, [("Location", place), ("Connection", "close")], b"")
    how = RegistryOptions(attempts=2, backoff=30, timeout=0.5, plain_http=True, login=lambda _: None)
    with Repository(Reference.parse(f"{canned.host}/a/b"), how) as repository:
        for question in (lambda: repository.manifest("v1"), lambda: b"".join(repository.read(BLOB))):
            with pytest.raises(RegistryError, match="redirects to an address that is not a URL"):
                question()


def test_an_answer_that_does_not_end_takes_little_memory(canned: Canned) -> None:
    canned.answer = message(200, [("Connection", "close")], b" " * (3 * MAX_ANSWER_BYTES))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    ask_everything(canned, canned.answer, 2)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most - before < 64 << 20


@MANY
@given(
    st.text(max_size=200) | JSON.map(json.dumps) | st.sampled_from([text.decode("latin-1") for text in DEEP])
)
def test_any_facts_of_an_engine(text: str) -> None:
    facts = engine._facts_of(text)
    assert isinstance(engine._storage(facts), str)
    assert engine._last_error(text)
