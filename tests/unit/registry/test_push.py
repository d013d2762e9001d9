"""A push is right or fails in one sentence: no fault gets a wrong blob committed or a tag moved early."""

from __future__ import annotations

import random
import time
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from layouts import layer_of, make_layout, put_blob, put_index
from servers.registry import Fault, Kind, Registry

from podkiln.errors import IntegrityError, RegistryError, UsageError
from podkiln.oci import layout, spec
from podkiln.oci.reference import Reference
from podkiln.registry import PushReport, RegistryOptions, push
from podkiln.registry.credentials import Credentials

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.oci.layout import Layout

ME = Credentials("me", "s3cret")
BIG = 3 << 20  # bytes: several chunks
ZEROS = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """An image with one layer of several chunks and two small ones."""
    path = tmp_path_factory.mktemp("layout")
    noise = random.Random(1).randbytes(BIG).hex()[:BIG]
    return layout.read(make_layout(path, layer_of(big=noise), layer_of(b="two"), layer_of(c="three")))


def settings(login: Credentials | None = ME, **more: Any) -> RegistryOptions:
    options = {"attempts": 4, "backoff": 0.01, "timeout": 0.5, "login": lambda _: login, **more}
    return RegistryOptions(**options)


def name(registry: Registry) -> Reference:
    return Reference.parse(f"{registry.host()}/you/app:v1")


def send(registry: Registry, image: Layout, **more: Any) -> PushReport:
    return push(image, name(registry), settings=settings(**more))


def assert_whole(registry: Registry, image: Layout) -> None:
    """All is there, right, and nothing half-made stays behind."""
    assert {digest for _, digest in registry.blobs} == {blob.digest for blob in image.blobs}
    assert all(spec.digest_of(data) == digest for (_, digest), data in registry.blobs.items())
    assert registry.manifests["you/app", "v1"][1] == image.manifest_bytes
    assert registry.manifests["you/app", image.descriptor.digest] == (spec.MANIFEST, image.manifest_bytes)
    assert registry.uploads == {}


def assert_untagged(registry: Registry) -> None:
    """Nothing wrong was committed, and the tag did not move."""
    assert all(spec.digest_of(data) == digest for (_, digest), data in registry.blobs.items())
    assert ("you/app", "v1") not in registry.manifests
    assert registry.uploads == {}


def big_layer(image: Layout) -> spec.Descriptor:
    return max(image.manifest.layers, key=lambda layer: layer.size)


def test_a_push_brings_all_and_tells_what_it_did(image: Layout) -> None:
    told: dict[str, list[int]] = {}
    with Registry() as registry:
        report = push(
            image,
            name(registry),
            settings=settings(),
            on_progress=lambda what, done, total: told.setdefault(what, []).append(total - done),
        )
        assert_whole(registry, image)
    assert report.digest == image.descriptor.digest
    assert [blob.digest for blob in report.layers] == [layer.digest for layer in image.manifest.layers]
    assert (report.uploaded_bytes, report.mounted_bytes, report.existing_bytes) == (image.size, 0, 0)
    assert {what: left[-1] for what, left in told.items()} == {spec.short(b.digest): 0 for b in image.blobs}
    assert all(left == sorted(left, reverse=True) for left in told.values())


def test_the_tag_moves_last(image: Layout) -> None:
    with Registry() as registry:
        send(registry, image)
        writes = [hit.path for hit in registry.hits if hit.method == "PUT"]
    assert writes[-1].endswith("/manifests/v1")
    assert writes[-2].endswith(f"/manifests/{image.descriptor.digest}")
    assert image.manifest.config.digest.partition(":")[2] in writes[-3]


def test_what_is_there_is_not_sent_again(image: Layout) -> None:
    with Registry() as registry:
        send(registry, image)
        sent = registry.received
        report = send(registry, image)
        assert registry.received == sent == image.size
    assert (report.uploaded_bytes, report.existing_bytes) == (0, image.size)


def test_blobs_are_mounted_from_other_repositories(image: Layout) -> None:
    with Registry(auth="bearer") as registry:
        send(registry, image)
        sent = registry.received
        other = Reference.parse(f"{registry.host()}/you/other:v1")
        report = push(image, other, settings=settings(), mount_from=["you/none", "you/app"])
        assert registry.received == sent
        assert registry.uploads == {}
        assert all(
            "scope=repository%3Ayou%2Fapp%3Apull" in hit.path for hit in registry.asked("GET", "/token")[-1:]
        )
    assert (report.uploaded_bytes, report.mounted_bytes) == (0, image.size)


@pytest.mark.parametrize(
    "fault", [Fault("refuse-mount", "POST", times=-1), Fault("status", "POST", "mount=", -1, status=403)]
)
def test_a_mount_that_is_not_made_is_an_upload(image: Layout, fault: Fault) -> None:
    with Registry() as registry:
        send(registry, image)
        registry.faults.append(fault)
        other = Reference.parse(f"{registry.host()}/you/other:v1")
        report = push(image, other, settings=settings(), mount_from=["you/app"])
        assert registry.uploads == {}
    assert report.uploaded_bytes == image.size


@pytest.mark.parametrize("auth", ["none", "basic", "bearer"])
@pytest.mark.parametrize("locations", ["absolute", "relative", "elsewhere"])
def test_logins_and_locations(image: Layout, auth: Any, locations: Any) -> None:
    with Registry(auth=auth, locations=locations) as registry:
        send(registry, image)
        assert_whole(registry, image)
        elsewhere = [hit for hit in registry.hits if hit.where == "elsewhere" and "/token" not in hit.path]
        assert bool(elsewhere) == (locations == "elsewhere")
        assert [hit for hit in elsewhere if hit.authorization] == []


def test_an_identity_token_is_traded(image: Layout) -> None:
    with Registry(auth="bearer", identity_token="idt") as registry:
        send(registry, image, login=Credentials("", "", "idt"))
        assert_whole(registry, image)


IN_THE_MIDDLE = Fault("cut", "PATCH", after=1 << 19)
RECOVERS: list[tuple[str, list[Fault]]] = [
    ("a login check cut", [Fault("cut", "GET", "/v2/")]),
    ("HEAD cut twice", [Fault("cut", "HEAD", times=2)]),
    ("429 with Retry-After", [Fault("status", status=429, retry_after="0", times=3)]),
    ("a storm of 503", [Fault("status", "POST", status=503, times=3)]),
    ("a 500 at the commit", [Fault("status", "PUT", "digest=", status=500)]),
    ("a 502 at a PATCH", [Fault("status", "PATCH", status=502)]),
    ("a cut before the first byte", [Fault("cut", "PATCH", after=0)]),
    ("a cut in the middle", [IN_THE_MIDDLE]),
    ("a cut, the state unknown", [IN_THE_MIDDLE, Fault("status", "GET", "uploads", status=405)]),
    ("a cut, the state cut", [IN_THE_MIDDLE, Fault("cut", "GET", "uploads", times=4)]),
    ("a cut, the upload forgotten", [IN_THE_MIDDLE, Fault("forget", "GET", "uploads")]),
    ("a cut, resuming refused", [IN_THE_MIDDLE, Fault("status", "PATCH", status=416)]),
    ("no answer to a PATCH", [Fault("mute", "PATCH")]),
    ("no answer to a commit", [Fault("mute", "PUT", "digest=")]),
    ("no answer to a tag", [Fault("cut", "PUT", "/manifests/v1")]),
    ("a byte flipped on the wire", [Fault("flip", "PATCH")]),
    ("uploads forgotten", [Fault("forget", "PATCH")]),
    ("uploads forgotten at the commit", [Fault("forget", "PUT", "digest=")]),
    ("a HEAD that hangs", [Fault("hang", "HEAD", seconds=1)]),
    ("an answer that drips", [Fault("drip", "GET", "/manifests/")]),
]


@pytest.mark.parametrize("faults", [faults for _, faults in RECOVERS], ids=[what for what, _ in RECOVERS])
def test_what_may_pass_is_tried_again(image: Layout, faults: list[Fault]) -> None:
    with Registry(faults=deepcopy(faults)) as registry:
        send(
            registry, image, jobs=1
        )  # one after the other, so that faults meet the requests they are meant for
        assert all(fault.times == 0 for fault in registry.faults)
        assert_whole(registry, image)


def test_a_cut_upload_goes_on_where_it_was_cut(image: Layout) -> None:
    with Registry(faults=[Fault("cut", "PATCH", after=1 << 20)]) as registry:
        send(registry, image, jobs=1)
        assert registry.received == image.size
        assert_whole(registry, image)


def test_an_upload_taken_in_part_goes_on_there(image: Layout) -> None:
    with Registry(faults=[Fault("short", "PATCH", "uploads/0?", after=1 << 20)]) as registry:
        send(registry, image, jobs=1)
        assert len(registry.asked("PATCH", "uploads/0?")) == 2
        assert_whole(registry, image)


@pytest.mark.parametrize("times", [1, 2])
def test_a_blob_whose_commit_went_unanswered_is_not_sent_again(image: Layout, times: int) -> None:
    with Registry(faults=[Fault("mute", "PUT", "digest=", times=times)]) as registry:
        send(registry, image)
        assert registry.received == image.size
        assert_whole(registry, image)


def test_an_upload_that_makes_headway_may_be_cut_often(
    image: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkiln.registry.upload._HEADWAY", 1 << 18)
    with Registry(faults=[Fault("cut", "PATCH", "uploads/0?", after=1 << 18, times=5)]) as registry:
        send(registry, image, attempts=2, jobs=1)
        assert registry.faults[0].times == 0
        assert registry.received == image.size


def test_an_upload_that_makes_none_is_given_up(image: Layout) -> None:
    with Registry(faults=[Fault("cut", "PATCH", after=10, times=-1)]) as registry:
        with pytest.raises(RegistryError, match="cut the connection"):
            send(registry, image)
        assert len(registry.asked("PATCH")) <= 3 * 4
        assert_untagged(registry)


def test_an_upload_that_is_lost_again_and_again_is_given_up(image: Layout) -> None:
    """Each new upload gains as much as the one before it, and no more: that is no headway."""
    faults = [Fault("cut", "PATCH", after=1 << 20, times=-1), Fault("forget", "PUT", "digest=", times=-1)]
    with Registry(faults=faults) as registry:
        with pytest.raises(RegistryError, match=r"cut the connection|did not go on"):
            send(registry, image, jobs=1, timeout=2.0)
        assert registry.received < 4 * image.size
        assert_untagged(registry)


@pytest.mark.parametrize("match", ["HEAD", "POST", "PATCH", "PUT"])
def test_a_token_may_expire_at_any_time(image: Layout, match: str) -> None:
    """A long upload outlives its token: a new one is fetched, and the upload goes on."""
    with Registry(auth="bearer", faults=[Fault("expire", match)]) as registry:
        send(registry, image)
        assert len(registry.asked("GET", "/token")) >= 2
        assert_whole(registry, image)


def test_a_token_near_its_end_is_renewed_unasked(image: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    with Registry(auth="bearer", token_life=100) as registry:
        from podkiln.registry import Repository

        with Repository(name(registry), settings(), push=True) as repository:
            monkeypatch.setattr("podkiln.registry.auth.time.monotonic", lambda: clock[0])
            for now in (0.0, 79.0, 81.0, 82.0):
                clock[0] = now
                assert not repository.blob_exists(image.manifest.config)
        assert len(registry.asked("GET", "/token")) == 2
        assert len(registry.asked("HEAD")) == 5  # four, and the one that was challenged


def always(method: str, match: str, status: int, code: str = "") -> list[Fault]:
    return [Fault("status", method, match, times=-1, status=status, code=code, retry_after="0")]


REFUSED: list[tuple[list[Fault], str, str]] = [
    (
        always("POST", "", 403, "DENIED"),
        "asked to begin an upload to you/app and forbids it (HTTP 403 DENIED: as the script has it)",
        "Ask for the right",
    ),
    (
        always("POST", "", 404, "NAME_UNKNOWN"),
        "asked to begin an upload to you/app and does not know it (HTTP 404 NAME_UNKNOWN",
        "create the repository",
    ),
    (always("PATCH", "", 413), "says that it is too large", "proxy"),
    (always("PATCH", "", 416), "does not take it in one piece", "streamed"),
    (always("PUT", "digest=", 400, "DENIED"), "calls the request malformed (HTTP 400 DENIED", ""),
    (always("PUT", "/manifests/", 405), "does not allow that", "read-only"),
    (always("PUT", "/manifests/v1", 409), "sees a conflict", "another"),
    (always("HEAD", "", 429), "too many requests", "Wait"),
    (always("PUT", "/manifests/v1", 500), "failed (HTTP 500", ""),
    (always("POST", "", 301), "gave an unexpected answer (HTTP 301", ""),
    (
        [Fault("flip", "PATCH", times=-1)],
        "did not go on with an upload to you/app (HTTP 400 DIGEST_INVALID",
        "",
    ),
    ([Fault("drip", "GET", "/v2/", times=-1)], "did not finish an answer in time", ""),
    ([Fault("huge", "GET", "/manifests/", times=-1)], "answered with more than 8388608 bytes", ""),
    ([Fault("hang", "POST", times=-1, seconds=1)], "did not answer in time", ""),
]


@pytest.mark.parametrize(("faults", "says", "hint"), REFUSED)
def test_every_no_is_one_sentence(image: Layout, faults: list[Fault], says: str, hint: str) -> None:
    with Registry(faults=faults) as registry:
        with pytest.raises(RegistryError) as caught:
            send(registry, image, timeout=0.2)
        if faults[0].method != "GET":  # read back is what comes after the tag
            assert_untagged(registry)
        assert registry.host() in str(caught.value)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert hint in (caught.value.hint or "")


def test_a_refusal_stops_the_other_uploads(image: Layout) -> None:
    slow = spec.short(big_layer(image).digest)
    with Registry(
        faults=[Fault("status", "HEAD", image.manifest.layers[1].digest, -1, status=403)]
    ) as registry:
        with pytest.raises(RegistryError, match="HTTP 403"):
            push(
                image,
                name(registry),
                settings=settings(),
                on_progress=lambda what, *_: time.sleep(what == slow),
            )
        assert_untagged(registry)
        assert ("you/app", big_layer(image).digest) not in registry.blobs


LIES: list[tuple[Kind, str, str, str]] = [
    ("claim", "PUT", "digest=", "kept blob sha256:"),
    ("claim", "GET", "/manifests/", "that hashes to sha256:"),
    ("swap", "HEAD", "/blobs/", "bytes, but it has"),
    ("swap", "GET", "/blobs/", "that hashes to sha256:"),  # the config, when it is read back
]


@pytest.mark.parametrize(("kind", "method", "match", "says"), LIES)
def test_a_registry_that_lies_is_found_out(
    image: Layout, kind: Kind, method: str, match: str, says: str
) -> None:
    with Registry() as registry:
        if kind == "swap":
            send(registry, image)
        registry.faults.append(Fault(kind, method, match, times=-1))
        with pytest.raises(IntegrityError, match=says):
            send(registry, image)


def test_a_tag_that_another_push_took_is_noticed(image: Layout) -> None:
    with (
        Registry(faults=[Fault("swap", "GET", "/manifests/v1", -1)]) as registry,
        pytest.raises(RegistryError, match=r"tag v1 of you/app at .* names sha256:") as caught,
    ):
        send(registry, image)
    assert "Another push" in (caught.value.hint or "")


@pytest.mark.parametrize("position", [0, BIG // 2, -1])
def test_a_wrong_byte_on_disk_is_never_committed(tmp_path: Path, position: int) -> None:
    path = make_layout(tmp_path)
    data = bytearray(random.Random(2).randbytes(BIG))
    good = layout.read(path)
    blob = put_blob(path, bytes(data), spec.LAYER)
    config = {**good.config.document, "rootfs": {"diff_ids": [blob["digest"]]}, "history": []}
    manifest = {
        "schemaVersion": 2,
        "config": put_blob(path, spec.canonical_json(config), spec.CONFIG),
        "layers": [blob],
    }
    put_index(path, put_blob(path, spec.canonical_json(manifest), spec.MANIFEST))
    image = layout.read(path)
    data[position] ^= 1
    image.blob_path(blob["digest"]).write_bytes(data)
    with Registry() as registry:
        with pytest.raises(IntegrityError, match="is damaged"):
            send(registry, image)
        assert registry.asked("PUT") == []
        assert len(registry.asked("DELETE", "/uploads/")) == 1
        assert_untagged(registry)


@pytest.mark.parametrize(
    ("auth", "login", "says"),
    [
        ("basic", None, "requires a login to look for blob"),
        ("basic", Credentials("me", "wrong"), "does not let this login"),
        ("bearer", None, "requires a login to look for blob"),
        ("bearer", Credentials("me", "wrong"), "refuses this login (HTTP 401 UNAUTHORIZED"),
        ("bearer", Credentials("", "", "wrong"), "refuses this login"),
    ],
)
def test_a_bad_login_is_one_sentence(image: Layout, auth: Any, login: Credentials | None, says: str) -> None:
    with Registry(auth=auth, identity_token="idt") as registry:
        with pytest.raises(RegistryError) as caught:
            send(registry, image, login=login)
        assert caught.value.hint == f"Run `docker login {registry.host()}`."
        assert len(registry.hits) < 20
    assert says in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_a_login_that_cannot_be_looked_up_stops_a_push(image: Layout) -> None:
    def broken(_: str) -> Credentials | None:
        raise RegistryError("The credential helper is broken.")

    with Registry(auth="bearer") as registry, pytest.raises(RegistryError, match="helper is broken"):
        push(image, name(registry), settings=RegistryOptions(login=broken))


def test_a_digest_that_is_not_the_images_is_refused(image: Layout) -> None:
    with pytest.raises(UsageError, match="asks for another digest"):
        push(image, Reference.parse(f"localhost:1/you/app@{ZEROS}"))


def test_nothing_secret_is_logged(image: Layout, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    with Registry(auth="bearer", locations="relative") as registry:
        send(registry, image)
    assert "s3cret" not in caplog.text
    assert "token-" not in caplog.text
    assert "_state" not in caplog.text
