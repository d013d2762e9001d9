"""The proxy before a registry: all passes unchanged, and each byte of a blob is counted once."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import registries
from servers import counting_proxy

from podkiln.oci import spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository
from podkiln.registry.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = bytes(range(256)) * 8192
BLOB = spec.Descriptor(spec.LAYER, spec.digest_of(DATA), len(DATA))


class Content:
    """A blob to upload."""

    name, size, blob = "data", len(DATA), BLOB

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        yield DATA[offset : 1 << 20]
        yield DATA[max(offset, 1 << 20) :]


@pytest.fixture
def counts() -> counting_proxy.Counts:
    return counting_proxy.Counts()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    with registries.serve(tmp_path / "registry") as host:
        yield host


def repository(host: str) -> Repository:
    return Repository(Reference.parse(f"{host}/bench"), RegistryOptions(), push=True)


def ignore(_what: str, _done: int, _total: int) -> None:
    pass


def test_what_passes_is_counted_by_digest(registry: str, counts: counting_proxy.Counts) -> None:
    with counting_proxy.serve(registry, counts) as host, repository(host) as there:
        assert not there.blob_exists(BLOB)
        Upload(there, Content(), ignore).run()
        assert counts.pushed() == {BLOB.digest: len(DATA)}
        assert counts.pulled() == {}
        assert there.blob_exists(BLOB)
        assert counts.pulled() == {}
        assert there.blob(BLOB) == DATA
        assert counts.pulled() == {BLOB.digest: len(DATA)}
        counts.clear()
        assert counts.pushed() == counts.pulled() == {}


def test_an_upload_that_is_not_committed_counts_too(registry: str, counts: counting_proxy.Counts) -> None:
    with counting_proxy.serve(registry, counts) as host, repository(host) as there:
        location, _ = there.initiate_upload()
        there.send(location, [DATA], (0, len(DATA)), "test")
        assert counts.pushed() == {"": len(DATA)}


def test_a_unix_socket_leads_there_too(registry: str, counts: counting_proxy.Counts, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with counting_proxy.serve_socket(registry, counts, path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_an_attempt_at_tls_is_answered_in_http(registry: str, counts: counting_proxy.Counts) -> None:
    """So do registries without TLS, and by that engines know that they are to speak without."""
    with counting_proxy.serve(registry, counts) as host:
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port))) as client:
            client.sendall(b"\x16\x03\x01 a client hello without an end of line")
            assert client.recv(4096).startswith(b"HTTP/1.0 400 ")
