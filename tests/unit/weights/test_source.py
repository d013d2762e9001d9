"""Files are read as a whole or refused in one sentence; a cut connection costs what was under way."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from hub_weights import FAST, access, weight
from servers.hub import Hub
from servers.hub_content import generate
from servers.hub_faults import Fault

from pod.net.http import Limits
from pod.net.hubs import Hubs, Request
from pod.net.transfer_policy import TransferPolicy
from podkiln.errors import IntegrityError, SourceError, UsageError
from podkiln.weights.source import CHUNK, SourceClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

    from podkiln.plan.weight_layers import WeightFile

SIZE = 3 * CHUNK + 12345


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def file(hub: Hub) -> HubFile:
    return hub.add("org/repo", "a.safetensors", SIZE)


def read(access: SourceClient, what: WeightFile, offset: int = 0) -> bytes:
    reading = access.open(what, offset)
    buffer, found = memoryview(bytearray(CHUNK)), bytearray()
    try:
        while count := reading.readinto(buffer):
            found += buffer[:count]
    finally:
        reading.close()
    return bytes(found)


@pytest.mark.parametrize("offset", [0, 1, CHUNK, SIZE - 1, SIZE])
def test_a_file_is_read_from_any_offset_on(hub: Hub, file: HubFile, offset: int) -> None:
    assert read(access(hub), weight(file), offset) == bytes(file.content)[offset:]


def test_nothing_moves_before_it_is_asked_for(hub: Hub, file: HubFile) -> None:
    access(hub).open(weight(file)).close()
    assert hub.hits == []


def test_all_four_kinds_of_source(hub: Hub, tmp_path: Path) -> None:
    content = generate(5000, 1)
    pony = hub.add_civitai(290640, "pony.safetensors", content, token="cv")
    plain = hub.add_file("x/pony.safetensors", content)
    small = hub.add("org/repo", "config.json", b'{"a": 1}', lfs=False)
    (tmp_path / "own.safetensors").write_bytes(content)
    origins: list[tuple[HubFile, dict[str, Any]]] = [
        (pony, {"kind": "civitai", "model": 257749, "version": 290640}),
        (plain, {"kind": "https", "url": f"{hub.url}/files/x/pony.safetensors"}),
        (plain, {"kind": "local", "path": str(tmp_path / "own.safetensors")}),
        (small, {"kind": "huggingface", "repo": "org/repo", "revision": None, "path": "config.json"}),
    ]
    for found, origin in origins:
        described = weight(found, origin=origin)
        assert read(access(hub, civitai_token="cv"), described) == found.content
        assert read(access(hub, civitai_token="cv"), described, 5) == found.content[5:]


def test_a_pinned_commit_stays_what_it_was(hub: Hub, file: HubFile) -> None:
    commit = hub.repositories["org/repo"].head
    hub.add("org/repo", "a.safetensors", SIZE, seed=9)
    pinned = {"kind": "huggingface", "repo": "org/repo", "revision": commit, "path": "a.safetensors"}
    assert read(access(hub), weight(file, origin=pinned)) == file.content


def test_tokens_are_sent_to_their_own_host_only(hub: Hub, file: HubFile) -> None:
    hub.gate("org/repo", "hf_secret")
    assert read(access(hub, hf_token="hf_secret"), weight(file)) == file.content
    assert {hit.authorization for hit in hub.hits if hit.where == "hub"} == {"Bearer hf_secret"}
    assert {hit.authorization for hit in hub.hits if hit.where == "cdn"} == {None}


PASSES: list[tuple[str, list[Fault]]] = [
    ("429 with Retry-After", [Fault("status", status=429, retry_after="0", times=4)]),
    ("503 at the hub", [Fault("status", status=503, where="hub", times=3)]),
    ("500, 502 and 504", [Fault("status", status=status) for status in (500, 502, 504)]),
    ("a reset", [Fault("reset", after=CHUNK)]),
    ("silence", [Fault("hang", after=1000)]),
    ("a closed connection", [Fault("cut", after=2 * CHUNK + 5)]),
    ("a Content-Length that is not kept", [Fault("cut", after=SIZE - 1)]),
    ("200 instead of 206", [Fault("cut", after=2 * CHUNK), Fault("ignore-range", skip=1)]),
    (
        "200 instead of 206, cut too",
        [Fault("cut", after=2 * CHUNK), Fault("ignore-range", skip=1, times=2), Fault("cut", after=5)],
    ),
]


@pytest.mark.parametrize("faults", [faults for _, faults in PASSES], ids=[what for what, _ in PASSES])
def test_what_passes_is_waited_for(hub: Hub, file: HubFile, faults: list[Fault]) -> None:
    hub.fault(*(Fault(**vars(fault)) for fault in faults))
    assert read(access(hub), weight(file)) == file.content
    assert all(fault.times == 0 for fault in hub.script.faults)


def test_a_file_cut_at_ten_places_is_fetched_once(hub: Hub, file: HubFile) -> None:
    cuts = sorted(random.Random(3).sample(range(SIZE), 10))
    lengths = [stop - start for start, stop in zip([0, *cuts], cuts, strict=False)]
    hub.fault(*(Fault("cut", after=length) for length in lengths))
    assert read(access(hub), weight(file)) == file.content
    assert len(hub.downloads()) == 11
    assert hub.served() < SIZE + 11 * CHUNK  # each time at most the chunk under way


def test_headway_makes_up_for_failures(hub: Hub, file: HubFile) -> None:
    """Five tries without a byte are the end; a file that keeps coming may be cut more often."""
    hub.fault(Fault("cut", after=SIZE // 20, times=-1))
    small = SourceClient(access(hub).hubs, TransferPolicy(**{**vars(FAST), "tries": 3}))
    assert read(small, weight(file)) == file.content


def test_a_byte_a_connection_is_no_headway(hub: Hub, file: HubFile) -> None:
    hub.fault(Fault("cut", after=1, times=-1))
    few = SourceClient(access(hub).hubs, TransferPolicy(**{**vars(FAST), "tries": 3}))
    with pytest.raises(SourceError, match="did not come in 3 tries"):
        read(few, weight(file))
    assert len(hub.downloads()) == 3


def always(kind: Any, **more: Any) -> list[Fault]:
    return [Fault(kind, times=-1, **more)]


REFUSED: list[tuple[str, list[Fault], dict[str, Any], str]] = [
    ("401", always("status", status=401, where="hub"), {}, "needs a login (401): accept the licence at"),
    (
        "403",
        always("status", status=403, where="hub"),
        {"hf_token": "t"},
        "was refused (403): the account of",
    ),
    ("404", always("status", status=404, where="hub"), {}, "is not there (404 from"),
    (
        "no such revision",
        always("status", status=404, where="hub", error_code="RevisionNotFound"),
        {},
        "asks for a revision that",
    ),
    ("410", always("status", status=410, where="hub"), {}, "is gone from"),
    ("416", [Fault("cut", after=CHUNK), *always("status", status=416)], {}, "fewer bytes at 127.0.0.1 than"),
    (
        "429",
        always("status", status=429, retry_after="0"),
        {},
        "did not come in 5 tries (127.0.0.1 answers 429; a token in HF_TOKEN raises its limit)",
    ),
    ("503", always("status", status=503), {}, "did not come in 5 tries (127.0.0.1 answers 503)"),
    ("cut", always("cut", after=0), {}, "did not come in 5 tries"),
    ("a web page", always("html"), {}, "answered with a page (text/html) in its place"),
    ("a longer file", always("long-file", after=7), {}, f"has {SIZE + 7} bytes at 127.0.0.1, but {SIZE} are"),
]


@pytest.mark.parametrize(
    ("faults", "tokens", "sentence"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_what_does_not_pass_is_one_sentence(
    hub: Hub, file: HubFile, faults: list[Fault], tokens: dict[str, str], sentence: str
) -> None:
    hub.fault(*faults)
    with pytest.raises(SourceError) as refused:
        read(access(hub, **tokens), weight(file))
    said = str(refused.value)
    assert sentence in said
    assert said.startswith("checkpoints/a.safetensors (huggingface:org/repo/a.safetensors) ")
    assert said.endswith(".")
    assert "\n" not in said
    assert refused.value.exit_code == 11


def test_silence_is_named(hub: Hub, file: HubFile) -> None:
    hub.fault(*always("hang", after=0))
    policy = TransferPolicy(**{**vars(FAST), "tries": 2})
    with pytest.raises(SourceError, match=r"did not come in 2 tries .*no answer in time"):
        read(SourceClient(access(hub).hubs, policy), weight(file))


def test_a_hub_that_names_another_hash_is_not_read(hub: Hub, file: HubFile) -> None:
    with pytest.raises(IntegrityError, match=f"sha256 {file.sha256}, but {'0' * 64} is locked"):
        read(access(hub), weight(file, sha256="0" * 64))
    assert hub.served() < SIZE  # what was in the sockets when the answer's head was read


def test_a_range_that_was_not_asked_for_is_refused(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkiln.weights.source._extent", lambda _answer: (CHUNK - 1, SIZE))
    with pytest.raises(
        SourceError, match=f"asked for from byte {CHUNK}, but 127.0.0.1 sends from {CHUNK - 1}"
    ):
        read(access(hub), weight(file), CHUNK)


@pytest.mark.parametrize("path", ["gone.safetensors", "."])
def test_a_local_file_that_cannot_be_read(hub: Hub, file: HubFile, tmp_path: Path, path: str) -> None:
    origin = {"kind": "local", "path": str(tmp_path / path)}
    with pytest.raises(SourceError, match=r"the local file .* cannot be read: .*\."):
        read(access(hub), weight(file, origin=origin))


def test_an_abort_wakes_a_reader_that_waits(hub: Hub, file: HubFile) -> None:
    hub.fault(*always("hang", after=0))
    reading = SourceClient(access(hub).hubs, TransferPolicy()).open(weight(file))
    begun = time.monotonic()
    threading.Timer(0.2, reading.abort).start()
    with pytest.raises(SourceError, match="given up"):
        reading.readinto(memoryview(bytearray(CHUNK)))
    reading.close()
    assert time.monotonic() - begun < 5


def test_an_abort_is_not_missed_while_the_answer_is_on_its_way(
    hub: Hub, file: HubFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that arrives then is one that nobody has aborted, and its body never comes."""
    hub.fault(Fault("hang", after=100, times=-1))
    patient = SourceClient(access(hub).hubs, TransferPolicy(limits=Limits(read=60.0)))
    reading = patient.open(weight(file))
    send = Request.send

    def aborted_meanwhile(request: Request, *arguments: Any) -> Any:
        answer = send(request, *arguments)
        reading.abort()
        return answer

    monkeypatch.setattr(Request, "send", aborted_meanwhile)
    begun = time.monotonic()
    with pytest.raises(SourceError, match="given up"):
        reading.readinto(memoryview(bytearray(CHUNK)))
    reading.close()
    assert time.monotonic() - begun < 20


def test_the_environment_says_where_and_with_which_token() -> None:
    found = SourceClient.from_environment({"HF_ENDPOINT": "https://hf-mirror.test/", "HF_TOKEN": "hf_canary"})
    assert found.hubs == Hubs(huggingface="https://hf-mirror.test", hf_token="hf_canary")
    assert "canary" not in repr(found)
    with pytest.raises(UsageError, match=r"HF_ENDPOINT is not an address .*[^.]\.$"):
        SourceClient.from_environment({"HF_ENDPOINT": "mirror"})
