"""Whatever a hub answers is a value or one sentence, and one file's trouble is that file's alone."""

from __future__ import annotations

import gzip
import json
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from descriptions import FILE, SHA
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from model_locks import ModelLocks, civitai, entry, from_hub
from servers.hub import Hub
from servers.hub_faults import Fault

from podkiln.config import catalog
from podkiln.lock.resolve import http, weights
from podkiln.lock.resolve.http import Patience

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.lock.resolve.weights import ResolveResult

COMMIT = SHA[:40]
LISTING: dict[str, Any] = {
    "sha": COMMIT,
    "siblings": [
        {"rfilename": "model.safetensors", "size": 5, "blobId": COMMIT, "lfs": {"sha256": SHA, "size": 5}}
    ],
}
VERSION: dict[str, Any] = {
    "id": 90,
    "modelId": 45,
    "model": {"mode": None},
    "files": [
        {
            "name": "pony.safetensors",
            "primary": True,
            "sizeKB": 5 / 1024,
            "metadata": {"format": "SafeTensor"},
            "hashes": {"SHA256": SHA.upper()},
        }
    ],
}


def changed(data: dict[str, Any], place: str, value: Any) -> bytes:
    """Return the JSON with another value at a place; without the key where the value is `...`."""
    copy = json.loads(json.dumps(data))
    inside, *steps = copy, *(int(step) if step.isdigit() else step for step in place.split("/"))
    for step in steps[:-1]:
        inside = inside[step]
    if value is ...:
        del inside[steps[-1]]
    else:
        inside[steps[-1]] = value
    return json.dumps(copy).encode()


ODD: list[Any] = [None, ..., [], {}, "", "abc", 5, -1, True, 1.5, [[]], "0" * 5000, 10**30]
PLACES = [
    ("org/repo", LISTING, FILE, place)
    for place in (
        *("sha", "siblings", "siblings/0", "siblings/0/rfilename", "siblings/0/lfs"),
        *("siblings/0/lfs/sha256", "siblings/0/lfs/size"),
    )
] + [
    ("versions/90", VERSION, civitai(), place)
    for place in (
        *("modelId", "model", "model/mode", "files", "files/0", "files/0/hashes", "files/0/hashes/SHA256"),
        *("files/0/sizeKB", "files/0/metadata", "files/0/metadata/format", "files/0/primary", "files/0/name"),
    )
]
WHOLE = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"5",
    b"NaN",
    b"<!DOCTYPE html><html>sign in</html>",
    b"\xff\xfe\x00",
    json.dumps(VERSION).encode("utf-16"),
    b'{"sha": "\xe9"}',
    b"[" * 100_000,
    b'{"siblings":' * 50_000,
    b"9" * 10_000,
    b'{"files": 1e999}',
    b" " * (9 << 20),
]


def is_sound(file: Any) -> bool:
    """Whether a file is resolved with the right facts, or not at all."""
    told = {5: (5 * 1024, SHA), 1.5: (1536, SHA)}  # as CivitAI's sizeKB these are right
    return (file.size, file.sha256) in {(5, SHA), (None, None), (5, None), (None, SHA), *told.values()}


@pytest.mark.parametrize(("match", "data", "described", "place"), PLACES, ids=[row[3] for row in PLACES])
@pytest.mark.parametrize("value", ODD, ids=lambda value: repr(value)[:20])
def test_an_odd_value_leaves_that_file_as_it_was_and_all_others_are_locked(
    match: str, data: dict[str, Any], described: str, place: str, value: Any, hub: Hub, house: ModelLocks
) -> None:
    """Before, a list for a mapping or `hashes: null` was a traceback."""
    hub.add("org/other", "other.safetensors", 500)
    hub.add_civitai(91, "other.safetensors", b"x", model=45)
    hub.fault(Fault("body", match, "hub", times=-1, body=changed(data, place, value)))
    house.describe("a", described)
    house.describe(
        "b",
        entry(huggingface="org/other", path="other.safetensors"),
        entry(civitai={"model": 45, "version": 91}, name="another.safetensors"),
    )
    outcome = house.relock()
    assert [file.resolved for file in house.files("b")] == [True, True]
    (file,) = house.files("a")
    assert is_sound(file), file
    said = [*outcome.warnings, *outcome.problems]
    assert file.resolved or len(said) == 1
    assert all("\n" not in text and text.isprintable() and len(text) < 800 for text in said)


@pytest.mark.parametrize("described", [FILE, civitai()], ids=["huggingface", "civitai"])
@pytest.mark.parametrize("body", WHOLE, ids=range(len(WHOLE)))
def test_an_answer_that_is_none_is_a_warning_for_that_file(
    body: bytes, described: str, hub: Hub, house: ModelLocks
) -> None:
    hub.add("org/other", "other.safetensors", 500)
    hub.fault(
        Fault("body", "org/repo", "hub", times=-1, body=body),
        Fault("body", "versions/90", "hub", times=-1, body=body),
    )
    house.describe("a", described)
    house.describe("b", entry(huggingface="org/other", path="other.safetensors"))
    (warning,) = house.relock().warnings
    assert warning.startswith("a: checkpoints/")
    assert house.files("b")[0].resolved
    assert house.only("a") == (None, None, None)


@pytest.mark.parametrize("described", [FILE, civitai()], ids=["huggingface", "civitai"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", where="hub", status=429),
        Fault("status", where="hub", status=429, retry_after="0"),
        Fault("status", where="hub", status=503, times=3),
        Fault("html", where="hub"),
        Fault("body", where="hub", body=b'{"sha": 5, "files": 5}'),
        Fault("cut", where="hub", after=20),
        Fault("reset", where="hub", after=20),
        Fault("hang", where="hub", after=20),
        Fault("short-length", where="hub", after=20),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}",
)
def test_what_passes_is_asked_again(fault: Fault, described: str, hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "model.safetensors", 500)
    hub.add_civitai(90, "pony.safetensors", b"x")
    hub.fault(Fault(**vars(fault)))
    house.describe("mine", described)
    outcome = house.relock()
    assert outcome.warnings == []
    assert house.files("mine")[0].resolved


def test_a_hub_that_is_busy_for_one_file_is_asked_for_the_others(hub: Hub, house: ModelLocks) -> None:
    for name in ("a", "b", "c"):
        hub.add(f"org/{name}", "model.safetensors", 500)
        house.describe(name, FILE.replace("org/repo", f"org/{name}"))
    hub.fault(Fault("status", "org/a", "hub", times=-1, status=429, retry_after="0"))
    outcome = house.relock()
    assert outcome.count(resolved=True) == 2
    (warning,) = outcome.warnings
    assert warning.startswith("1 file stays as it was: ")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("status", status=302, location="http://127.0.0.1:9/"),
        Fault("status", status=302, location="http://[::1"),
        Fault("status", status=302, location="{cdn}/busy"),
        Fault("hang", after=0),
        Fault("reset", after=0),
    ],
    ids=lambda fault: f"{fault.kind} {fault.location}",
)
def test_one_repository_does_not_silence_its_hub(
    fault: Fault, hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", Patience(tries=2, first=0.01, connect=1, read=0.3))
    for name in ("a", "b", "c"):
        hub.add(f"org/{name}", "model.safetensors", 500)
        house.describe(name, FILE.replace("org/repo", f"org/{name}"))
    location = fault.location and fault.location.format(cdn=hub.cdn_url)
    hub.fault(Fault(**{**vars(fault), "match": "org/a", "where": "hub", "times": -1, "location": location}))
    hub.fault(Fault("status", "/busy", "cdn", times=-1, status=503))
    outcome = house.relock()
    assert outcome.count(resolved=True) == 2
    (warning,) = outcome.warnings
    assert warning.startswith("1 file stays as it was: ")


def test_redirects_to_nowhere_are_not_asked_again_for_ever(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", Patience(tries=4, first=0.01, connect=1))
    hub.fault(Fault("status", "", "hub", times=-1, status=302, location="http://127.0.0.1:9/"))
    house.describe("mine", *(entry(huggingface=f"org/r{n}", path=f"{n}.bin") for n in range(20)))
    assert house.relock().warnings[0].startswith("20 files stay as they were: ")
    assert len(hub.hits) == 5 * 4 + 15


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (b"\xef\xbb\xbf" + json.dumps(LISTING).encode(), None, ""),
        (gzip.compress(json.dumps(LISTING).encode(), mtime=0), "gzip", ""),
        (json.dumps(LISTING).replace(SHA, SHA.upper()).encode(), None, ""),
        (b"{}", "gzip", "damaged gzip"),
        (gzip.compress(b"{}" * 99, mtime=0)[:-9], "gzip", "gzip that breaks off"),
        (gzip.compress(bytes(9 << 20)), "gzip", "more than 8388608 bytes"),
        (b"{}", "br", "in the encoding br, which was not requested"),
    ],
    # Not of the bytes: gzip writes the time, and workers must agree on names.
    ids=["BOM", "gzip", "upper case", "no gzip", "half a gzip", "large", "br"],
)
def test_what_mirrors_and_proxies_do_to_an_answer(
    body: bytes, encoding: str | None, said: str, hub: Hub, house: ModelLocks
) -> None:
    hub.fault(Fault("body", "org/repo", "hub", times=-1, body=body, encoding=encoding))
    house.describe("a", FILE)
    outcome = house.relock()
    assert house.only("a") == ((COMMIT, 5, SHA) if not said else (None, None, None))
    assert [said in warning for warning in outcome.warnings] == ([True] if said else [])


def test_a_hub_that_never_answers_is_not_asked_for_ever(hub: Hub, house: ModelLocks) -> None:
    hub.fault(Fault("status", where="hub", status=503, times=-1))
    house.describe("mine", *(entry(huggingface=f"org/r{n}", path=f"{n}.bin") for n in range(40)))
    outcome = house.relock()
    assert outcome.warnings[0].startswith("40 files stay as they were: ")
    assert len(hub.hits) < 12


def test_the_wait_that_a_hub_asks_for_is_waited_said_and_bounded(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(threading.Event, "wait", lambda _, timeout=None: waits.append(timeout or 0))
    caplog.set_level(logging.INFO, "podkiln")
    hub.fault(Fault("status", where="hub", status=429, times=-1, rate_limit='"api";r=0;t=240'))
    house.describe("mine", *(entry(huggingface=f"org/r{n}", path=f"{n}.bin") for n in range(40)))
    (warning,) = house.relock().warnings
    host = hub.url.removeprefix("http://")
    waited = [wait for wait in waits if wait >= 1]
    assert waited == [240, 240, 240]
    assert sum(waited) <= 900
    assert warning == (
        f"40 files stay as they were: {host} could not be asked "
        "(it answered 429; a token in HF_TOKEN raises its limit)."
    )
    assert caplog.messages[0] == (
        f"{host}: it answered 429; a token in HF_TOKEN raises its limit; it is asked again in 240 s."
    )


def test_a_signal_ends_a_wait_at_once(hub: Hub, house: ModelLocks) -> None:
    hub.fault(Fault("status", where="hub", status=429, times=-1, rate_limit='"api";r=0;t=240'))
    house.describe("mine", FILE)
    threading.Timer(0.5, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        house.relock()
    assert time.monotonic() - begun < 5
    assert not house.lock.exists()


def test_an_answer_that_comes_in_drops_is_not_waited_for(
    hub: Hub, house: ModelLocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PATIENCE", Patience(tries=1, read=5, whole=0.5))
    hub.fault(
        Fault("body", where="hub", times=-1, body=b" " * 200_000),
        Fault("rate", where="hub", times=-1, rate=20_000),
    )
    house.describe("mine", FILE)
    begun = time.monotonic()
    (warning,) = house.relock().warnings
    assert time.monotonic() - begun < 5
    assert "1 file stays as it was" in warning


# --- what is locked is not forgotten


@pytest.mark.parametrize("hashes", [None, ..., {}, {"SHA256": None}])
def test_a_hash_that_a_hub_tells_no_more_is_kept(hashes: Any, hub: Hub, house: ModelLocks) -> None:
    file = hub.add_civitai(90, "pony.safetensors", b"x" * 5)
    house.describe("mine", civitai())
    house.relock()
    hub.fault(Fault("body", "versions/90", "hub", times=-1, body=changed(VERSION, "files/0/hashes", hashes)))
    outcome = house.relock("mine")
    assert house.only() == (None, 5, file.sha256)
    assert outcome.warnings == [
        "mine: checkpoints/pony.safetensors: civitai:45@90 gives no sha256 any more: the locked one was kept."
    ]


def test_an_upgrade_that_nobody_answers_keeps_everything(hub: Hub, house: ModelLocks) -> None:
    hub.add("org/repo", "model.safetensors", 500)
    hub.add_civitai(90, "pony.safetensors", b"x" * 5)
    house.describe("mine", FILE, civitai())
    house.relock()
    before = house.lock.read_bytes()
    for fault in ("html", "status"):
        hub.fault(Fault(fault, where="hub", times=-1))
        assert house.relock("all").changed == []
        assert house.lock.read_bytes() == before


# --- any answer at all


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A hub that answers what it is given, and a model that asks it for a file each."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    house = ModelLocks(folder)
    house.describe("a", FILE, from_hub("config.json"))
    house.describe("b", civitai())
    entries = catalog.load(house.models)
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("CIVITAI_ENDPOINT", hub.url)
        patch.delenv("HF_TOKEN", raising=False)
        patch.delenv("CIVITAI_TOKEN", raising=False)
        patch.setattr(http, "PATIENCE", Patience(tries=1, connect=2, read=2, whole=5))

        def answer(body: bytes) -> ResolveResult:
            hub.script.faults[:] = [Fault("body", where="hub", times=-1, body=body)]
            hub.hits.clear()
            return weights.relock(folder / "none.json", entries, (), start=folder / "never.json")

        yield answer


def check(outcome: ResolveResult) -> None:
    for files in outcome.models.values():
        for file in files:
            assert type(file).model_validate(file.model_dump()) == file
    said = [*outcome.warnings, *outcome.problems, *outcome.reasons.values()]
    assert all("\n" not in text and text.isprintable() and len(text) < 1000 for text in said)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=70)
    | st.sampled_from([SHA, COMMIT, "config.json", "model.safetensors", "Archived", "Danger", 0, -1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
COMMON = settings(
    max_examples=60,
    deadline=2000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(body=st.binary(max_size=300))
@COMMON
@example(body=b"[" * 100_000)
@example(body=b"<html>")
@example(body=b"\xff\xfe")
def test_any_bytes_are_an_answer_or_one_sentence(body: bytes, fuzzed: Any) -> None:
    check(fuzzed(body))


@given(
    at=st.sampled_from([(data, place) for _, data, _, place in PLACES]),
    value=VALUES,
)
@COMMON
@example(at=(VERSION, "files/0/hashes"), value=None)
@example(at=(VERSION, "model"), value=[])
@example(at=(VERSION, "files/0/sizeKB"), value=1e308)
@example(at=(LISTING, "siblings"), value={})
@example(at=(LISTING, "siblings/0/rfilename"), value="\ud800")
def test_any_value_at_any_place_is_an_answer_or_one_sentence(
    at: tuple[dict[str, Any], str], value: Any, fuzzed: Any
) -> None:
    data, place = at
    check(fuzzed(changed(data, place, value)))
