"""Where Authorization goes, who is trusted, and what an unreachable registry is called."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from layouts import make_layout
from servers.registry import Fault, Registry

from podkiln import registry
from podkiln.errors import IntegrityError, RegistryError, UsageError
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.registry import RegistryOptions, Repository, http_client, is_local, push
from podkiln.registry.cancellation import CancelledError
from podkiln.registry.credentials import Credentials
from podkiln.registry.errors import TransientError
from podkiln.registry.transport import Transport

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.layout import Layout

ME = Credentials("me", "s3cret")


@pytest.fixture
def image(tmp_path: Path) -> Layout:
    return layout.read(make_layout(tmp_path / "layout"))


def settings(**more: Any) -> RegistryOptions:
    return RegistryOptions(**{"attempts": 3, "backoff": 0.01, "timeout": 0.5, "login": lambda _: ME, **more})


def name(server: Registry) -> Reference:
    return Reference.parse(f"{server.host()}/you/app:v1")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1,DNS:registry.test", "-days", "1"]
    subprocess.run(
        [*argv, "-keyout", str(path.with_name("key")), "-out", str(path)], check=True, capture_output=True
    )
    path.write_bytes(path.read_bytes() + path.with_name("key").read_bytes())
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost.example.com", False),
        ("10.0.0.1:5000", False),
        ("ghcr.io", False),
        ("128.0.0.1", False),
    ],
)
def test_only_this_machine_is_spoken_to_without_tls(host: str, *, local: bool) -> None:
    assert is_local(host) is local


def test_a_ca_bundle_makes_a_registry_trusted(image: Layout, certificate: Path) -> None:
    with Registry(tls=tls(certificate), auth="bearer") as server:
        push(image, name(server), settings=settings(plain_http=False, ca_bundle=certificate))
        assert ("you/app", "v1") in server.manifests


def test_an_unknown_certificate_is_one_sentence(image: Layout, certificate: Path) -> None:
    with (
        Registry(tls=tls(certificate)) as server,
        pytest.raises(RegistryError, match=r"certificate of .* is not trusted: self-signed") as caught,
    ):
        push(image, name(server), settings=settings(plain_http=False))
    assert "--ca-bundle" in (caught.value.hint or "")


def test_tls_spoken_to_none_is_one_sentence(image: Layout) -> None:
    with Registry() as server, pytest.raises(RegistryError, match="failed the TLS handshake"):
        push(image, name(server), settings=settings(plain_http=False))


def test_a_registry_on_this_machine_may_speak_tls_with_any_certificate(
    image: Layout, certificate: Path
) -> None:
    """As docker does: https first, whoever signed the certificate, then http."""
    with Registry(tls=tls(certificate), auth="bearer") as server:
        push(image, name(server), settings=settings())
        assert ("you/app", "v1") in server.manifests


def test_a_registry_on_this_machine_is_held_to_the_ca_that_was_given(
    image: Layout, certificate: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    argv += ["-subj", "/CN=other", "-days", "1", "-keyout", str(tmp_path / "key"), "-out", str(other)]
    subprocess.run(argv, check=True, capture_output=True)
    with Registry(tls=tls(certificate)) as server:
        push(image, name(server), settings=settings(ca_bundle=certificate))
        with pytest.raises(RegistryError, match="is not trusted"):
            push(image, name(server), settings=settings(ca_bundle=other))


def test_a_login_to_a_registry_with_tls_on_this_machine_is_not_sent_in_the_clear(
    image: Layout, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Registry(tls=tls(certificate), auth="bearer") as server:
        monkeypatch.setattr(server, "url", lambda where="registry": f"http://{server.host(where)}")
        with pytest.raises(RegistryError, match="which is not https"):
            push(image, name(server), settings=settings())


def test_https_is_not_left_for_http(image: Layout, certificate: Path) -> None:
    with (
        Registry(tls=tls(certificate), locations="plain") as server,
        pytest.raises(RegistryError, match=r"redirects to http://127\.0\.0\.1, which is not https") as caught,
    ):
        push(image, name(server), settings=settings(plain_http=False, ca_bundle=certificate))
    assert "X-Forwarded-Proto" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "says"), [("no pem", "holds no PEM certificate"), (None, "could not be read")]
)
def test_a_bad_ca_bundle_is_one_sentence(tmp_path: Path, text: str | None, says: str) -> None:
    bundle = tmp_path / "ca.pem"
    if text is not None:
        bundle.write_text(text)
    with pytest.raises(UsageError, match=says):
        registry.resolve_digest(Reference.parse("localhost:1/a"), RegistryOptions(ca_bundle=bundle))


def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(RegistryError, match=f"127.0.0.1:{port} refuses connections"):
            registry.resolve_digest(Reference.parse(f"127.0.0.1:{port}/a"), settings(backoff=5))
    assert time.monotonic() - begun < 2


def test_an_unknown_host_is_one_sentence() -> None:
    with pytest.raises(RegistryError, match=r"no\.such\.invalid has a name that could not be resolved"):
        registry.resolve_digest(Reference.parse("no.such.invalid/a"), settings(backoff=5))


def test_a_silent_registry_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryError, match=f"{host} did not answer in time"):
            registry.resolve_digest(Reference.parse(f"{host}/a"), settings(timeout=0.1))


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_proxy_stands_before_this_machine(
    image: Layout, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv(proxy, "http://127.0.0.1:1")
    with Registry() as server:
        push(image, name(server), settings=settings())


def test_reading(image: Layout) -> None:
    with Registry(auth="bearer", redirect_blobs=True) as server:
        push(image, name(server), settings=settings())
        found, data = registry.pull_manifest(name(server), settings(login=lambda _: None))
        assert (found.digest, data) == (image.descriptor.digest, image.manifest_bytes)
        assert found.media_type == spec.MANIFEST
        assert registry.resolve_digest(name(server), settings()) == image.descriptor.digest
        assert registry.blob_exists(name(server), image.manifest.config, settings())
        assert not registry.blob_exists(
            Reference.parse(f"{server.host()}/you/none"), image.manifest.config, settings()
        )
        config = registry.pull_blob(name(server), image.manifest.config, settings())
        assert spec.ImageConfig.parse(config, "c") == image.config
        moved = [hit for hit in server.hits if hit.where == "elsewhere" and "/blobs/" in hit.path]
        assert {hit.authorization for hit in moved} == {None}


def test_what_is_read_is_checked(image: Layout) -> None:
    with Registry() as server:
        push(image, name(server), settings=settings())
        server.faults += [Fault("swap", "GET", "/blobs/", -1), Fault("swap", "GET", "/manifests/", -1)]
        with pytest.raises(IntegrityError, match="sent a blob of you/app that hashes to"):
            registry.pull_blob(name(server), image.manifest.config, settings())
        with pytest.raises(IntegrityError, match=r"sent a manifest sha256:.* that hashes to"):
            registry.pull_manifest(name(server).with_digest(image.descriptor.digest), settings())


def test_a_broken_helper_does_not_stop_a_pull_without_login(
    image: Layout, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> Credentials | None:
        raise RegistryError("The credential helper is broken.")

    with Registry(auth="bearer") as server:
        push(image, name(server), settings=settings())
        registry.pull_manifest(name(server), settings(login=broken))
    assert "helper is broken. Going on without a login." in caplog.text


def test_a_registry_that_redirects_for_ever_is_left(image: Layout) -> None:
    with Registry(redirect_blobs=True) as server:
        server.servers["elsewhere"].where = "registry"
        with pytest.raises(RegistryError, match="redirects more than 5 times"):
            registry.pull_blob(name(server), image.manifest.config, settings())


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("/v2/a/uploads/1?_state=x%3D%2F", "http://127.0.0.1:{port}/v2/a/uploads/1?_state=x%3D%2F"),
        ("2?_state=y", "http://127.0.0.1:{port}/v2/a/2?_state=y"),
        ("?_state=z", "http://127.0.0.1:{port}/v2/a/?_state=z"),
        ("/v2/a/1?_state=x#frag?ment", "http://127.0.0.1:{port}/v2/a/1?_state=x"),
        ("http://127.0.0.1:{port}/v2/a/1#", "http://127.0.0.1:{port}/v2/a/1"),
        ("//Storage.Example:8443/1", "http://storage.example:8443/1"),
        ("https://me:pw@storage.example/1?a=b&a=c", "https://storage.example/1?a=b&a=c"),
    ],
)
def test_where_an_upload_goes_on(location: str, url: str) -> None:
    with (
        Registry() as server,
        Repository(Reference.parse(f"{server.host()}/a"), settings()) as repository,
    ):
        port = server.host().rpartition(":")[2]
        transport = repository.transport
        base = transport.absolute("/v2/a/")
        found = transport.absolute(location.replace("{port}", port), base)
    assert str(found) == url.replace("{port}", port)


def test_a_location_with_a_fragment_is_closed_by_its_digest(image: Layout) -> None:
    with Registry(locations="fragment") as server:
        push(image, name(server), settings=settings())
        assert ("you/app", "v1") in server.manifests


@pytest.mark.parametrize("proxy", ["socks5://localhost:1", "localhost:port", "ftp://me:s3cret@p.example"])
def test_a_proxy_that_cannot_be_used_is_one_sentence(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with (
        Repository(Reference.parse("r.example/you/app")) as repository,
        pytest.raises(RegistryError, match=r"^r\.example cannot be reached: HTTPS_PROXY is not") as said,
    ):
        repository.ping()
    assert "s3cret" not in f"{said.value} {said.value.hint}"


def test_a_proxy_that_no_proxy_makes_needless_is_not_judged(
    image: Layout, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ssh -D` leaves ALL_PROXY=socks5://… in many a shell, and NO_PROXY names what is inside the company."""
    monkeypatch.setenv("all_proxy", "socks5://localhost:1")
    monkeypatch.setattr(http_client, "is_local", lambda _host: False)
    with Registry(tls=tls(certificate)) as server:
        monkeypatch.setenv("no_proxy", server.host())
        push(image, name(server), settings=settings(ca_bundle=certificate))
        assert ("you/app", "v1") in server.manifests


class Tunnels:
    """A proxy that lets all through, to one server, whoever was asked for."""

    def __init__(self, port: int) -> None:
        self.asked: list[str] = []
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._take, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listening.accept()[0]
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += client.recv(1)
                self.asked.append(head.decode())
                server = socket.create_connection(("127.0.0.1", self._port))
                client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, giver: socket.socket, taker: socket.socket) -> None:
        with contextlib.suppress(OSError), giver, taker:
            while piece := giver.recv(1 << 16):
                taker.sendall(piece)
            taker.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("variable", ["https_proxy", "all_proxy"])
def test_a_push_goes_through_the_tunnel_of_a_proxy(
    image: Layout, certificate: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with Registry(tls=tls(certificate), auth="basic", locations="relative") as server:
        with contextlib.closing(Tunnels(int(server.host().partition(":")[2]))) as proxy:
            monkeypatch.setenv(variable, f"http://you:secret@{proxy.place}")
            push(image, Reference.parse("registry.test/you/app:v1"), settings=settings(ca_bundle=certificate))
        assert ("you/app", "v1") in server.manifests
    for head in proxy.asked:
        assert head.startswith("CONNECT registry.test:443 HTTP/1.")
        assert "Proxy-Authorization: Basic eW91OnNlY3JldA==" in head
        assert "bWU6" not in head  # the registry's login


def test_a_wait_that_a_registry_asks_for_is_announced_and_ends_with_the_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "podkiln")
    transport = Transport("registry.example", [], settings())
    threading.Timer(0.1, transport.cancelled.set).start()
    begun = time.monotonic()
    with pytest.raises(CancelledError):
        transport.pause(transport.backoff(), TransientError("Registry registry.example is busy.", wait=240))
    assert time.monotonic() - begun < 5
    assert caplog.messages == ["Registry registry.example is busy. It is tried again in 240 s."]


def test_after_a_cancel_nothing_but_a_delete_is_sent(image: Layout) -> None:
    with (
        Registry(auth="bearer") as server,
        Repository(name(server), settings(), push=True) as repository,
    ):
        location, _ = repository.initiate_upload()
        server.tokens.clear()
        repository.transport.cancel()
        sent = len(server.hits)
        for attempt in (repository.ping, repository.initiate_upload):
            with pytest.raises(CancelledError):
                attempt()
        assert len(server.hits) == sent
        assert repository.cancel_upload(location)
        assert server.uploads == {}


def test_a_registry_that_asks_for_more_than_is_waited_in_all_is_given_up() -> None:
    transport = Transport("registry.example", [], settings(attempts=9))
    backoff = transport.backoff()
    backoff.waited = 3 * 240
    with pytest.raises(RegistryError, match="is busy") as raised:
        transport.pause(backoff, TransientError("Registry registry.example is busy.", wait=240))
    assert not isinstance(raised.value, TransientError)
