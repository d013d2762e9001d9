"""The head of a .safetensors file: read in one request, and believed only where it adds up."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from fakes.pod import SCRIPTS
from hypothesis import example, given, settings
from hypothesis import strategies as st
from servers.hub import Hub
from servers.hub_content import generate, tensors
from servers.hub_faults import Fault

from pod.net import content_range
from pod.net.http import Limits, RefusedError, TransientError
from pod.net.hubs import Hubs, Request, request_for
from pod.resolve import safetensors_header
from pod.resolve.model_type import Types
from podkiln.config import model_types

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = Limits(1, 0.5)
TYPES = Types(model_types.to_json())


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


def request(hub: Hub, content: bytes) -> Request:
    hub.add("o/r", "a.safetensors", content)
    source = {"kind": "huggingface", "repo": "o/r", "revision": None, "path": "a.safetensors"}
    return request_for(source, Hubs(hub.url, hub.url))


def file(entries: dict[str, Any] | bytes, payload: int = 0, length: int | None = None) -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(payload)


def tensor(begin: int, end: int, dtype: str = "U8", shape: list[Any] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def test_one_request_tells_the_tensors_the_metadata_and_the_size(hub: Hub) -> None:
    content = tensors("a.weight", "b.weight", size=4096, metadata={"modelspec.architecture": "x/lora"})
    found = safetensors_header.fetch(request(hub, content), LIMITS)
    assert found.tensors == {"a.weight": (4096,), "b.weight": (4096,)}
    assert found.metadata == {"modelspec.architecture": "x/lora"}
    assert found.size == len(content)
    assert [hit.range for hit in hub.hits if hit.where == "cdn"] == ["bytes=0-1048575"]


def test_a_long_header_is_a_second_request_for_the_rest(hub: Hub) -> None:
    content = tensors(*(f"block.{number}.{'x' * 200}" for number in range(5000)), size=1)
    assert len(safetensors_header.fetch(request(hub, content), LIMITS).tensors) == 5000
    length = int.from_bytes(content[:8], "little")
    ranges = [hit.range for hit in hub.hits if hit.where == "cdn"]
    assert ranges == ["bytes=0-1048575", f"bytes=1048576-{7 + length}"]


def test_a_server_without_ranges_sends_no_more_than_is_read(hub: Hub) -> None:
    hub.fault(Fault("ignore-range", times=-1))
    found = safetensors_header.fetch(request(hub, generate(20 << 20)), LIMITS)
    assert found.size == 20 << 20
    assert hub.served() < 10 << 20  # what was on its way


def test_a_connection_that_breaks_is_for_another_try(hub: Hub) -> None:
    hub.fault(Fault("cut", after=40))
    with pytest.raises(TransientError):
        safetensors_header.fetch(request(hub, tensors("a")), LIMITS)
    assert safetensors_header.fetch(request(hub, tensors("a")), LIMITS).tensors.keys() == {"a"}


def test_a_file_that_is_here(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(tensors("a"))
    assert safetensors_header.read(path).tensors.keys() == {"a"}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "has an impossible length"),
        (b"\x02\0\0\0", "has an impossible length"),
        (file(b"", length=0), "has an impossible length"),
        (file({"a": tensor(0, 8)}, 8, length=1 << 62), "has an impossible length"),
        (file(b"x" * 100, length=100_000_001), "has an impossible length"),
        (b"PK\x03\x04" + bytes(200), "has an impossible length"),
        (b"<!DOCTYPE html><html>" * 20, "has an impossible length"),
        (file(b"{]"), "is not JSON"),
        (file(b"\xff\xfe"), "is not JSON"),
        (file(b"[" * 100_000), "is not JSON"),
        (file(b"[]"), "is not a JSON object"),
        (file(b'{"a":1,"a":2}'), "is not JSON"),
        (file({"__metadata__": {"a": 1}}), "has metadata that is not text"),
        (file({"__metadata__": []}), "has metadata that is not text"),
        (file({"a": 1}), "in a way that the format does not know"),
        (file({"a": {"dtype": "U8", "shape": [1]}}, 1), "in a way that the format does not know"),
        (file({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, 1), "in a way that the format"),
        (file({"a": {"dtype": ["U8"], "shape": [1], "data_offsets": [0, 1]}}, 1), "in a way that the"),
        (file({"a": tensor(0, 4, shape=[-4])}, 4), "is not a number of bytes"),
        (file({"a": tensor(0, 4, shape=[4.0])}, 4), "is not a number of bytes"),
        (file({"a": tensor(0, 1, shape=[True])}, 1), "is not a number of bytes"),
        (file({"a": tensor(0, 8, "F32", [4])}, 8), "which do not fit its shape"),
        (file({"a": tensor(0, 4), "b": tensor(8, 12)}, 12), "leaves holes"),
        (file({"a": tensor(4, 8)}, 8), "leaves holes"),
        (file({"a": tensor(0, 4), "b": tensor(2, 6)}, 6), "lets them overlap"),
        (file({"a": tensor(4, 0, shape=[0])}, 4), "do not fit its shape"),
        (file({"a": tensor(0, 4)}, 400), "speaks of 4 bytes of tensors where the file has 400"),
        (file({"a": tensor(0, 400)}, 4), "speaks of 400 bytes of tensors where the file has 4"),
    ],
)
def test_a_header_that_lies_is_refused(content: bytes, what: str) -> None:
    with pytest.raises(RefusedError, match=r"^is not a valid ") as caught:
        safetensors_header.parse(content, len(content))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dtype", "shape", "size"),
    [
        ("F32", [2, 3], 24),
        ("BF16", [], 2),
        ("F4", [3], 2),
        ("C128", [1], 16),
        ("I2", [9], 5),
        ("F16", [0, 7], 0),
    ],
)
def test_every_type_counts_its_bytes_and_a_newer_one_is_believed(
    dtype: str, shape: list[int], size: int
) -> None:
    content = file({"a": tensor(0, size, dtype, shape)}, size)
    assert safetensors_header.parse(content, len(content)).tensors == {"a": tuple(shape)}


def test_no_tensors_at_all_are_sound_too() -> None:
    content = file({})
    assert safetensors_header.parse(content, len(content)) == safetensors_header.SafetensorsHeader({}, {}, 10)


def test_a_size_that_nobody_says_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request(hub, tensors("a"))
    monkeypatch.setattr(content_range, "size", lambda _answer: None)
    with pytest.raises(RefusedError, match="does not say how many bytes it has"):
        safetensors_header.fetch(asked, LIMITS)


def test_it_is_safe_in_threads(hub: Hub) -> None:
    asked = request(hub, tensors("a"))
    found: list[safetensors_header.SafetensorsHeader] = []
    threads = [
        threading.Thread(target=lambda: found.append(safetensors_header.fetch(asked, LIMITS)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4


# --- limits

HARD = {
    "a shape of 3000 numbers of 4000 digits": b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":['
    + b",".join([b"9" * 4000] * 3000)
    + b"]}}",
    "a number of 5000 digits": b'{"a":{"dtype":"F32","data_offsets":[0,4],"shape":[' + b"9" * 5000 + b"]}}",
    "1000 dimensions": json.dumps({"a": tensor(0, 4, "F32", [1] * 1000)}).encode(),
    "a long name": json.dumps({"a" * 2000: tensor(0, 4, "F32", [1])}).encode(),
    "lists in lists": b"[" * 2_000_000,
    "many lists": b"[" + b"[]," * 1_000_000 + b"[]]",
    "many entries": b"{" + b'"a":1,' * 600_000 + b'"a":1}',
    "one string that does not end": b'"' + b'\\"' * 1_900_000,
    "letters of four bytes": b'{"__metadata__":{"a":"' + "\U0001f600".encode() * 1_000_000 + b'"}}',
    "100 MB": b"{}" + b" " * 5_000_000,
    "motion modules": json.dumps(
        {f"{n}{'.motion_modules.0_lora_A' * 40}": tensor(n, n + 1, "U8", [1]) for n in range(3500)}
    ).encode(),
}
WORK = """
import resource, sys, time
from pathlib import Path
from pod.net.http import RefusedError
from pod.resolve import safetensors_header
from pod.resolve.model_type import Types
import json
types = Types(json.loads(Path(sys.argv[2]).read_text()))
types._rules
here = int(next(l for l in open("/proc/self/status") if l.startswith("VmData:")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (here + (64 << 20),) * 2)
content = Path(sys.argv[1]).read_bytes()
begun = time.process_time()
try:
    types.of(safetensors_header.parse(content, len(content)))
except RefusedError as refused:
    print(refused)
print(time.process_time() - begun, file=sys.stderr)
"""


@pytest.mark.parametrize("name", HARD)
def test_no_header_costs_a_second_or_64_mebibytes(tmp_path: Path, name: str) -> None:
    """49 s of one processor and 2.5 GB of memory, once; no other file came, nor did SIGTERM end it."""
    path, kinds = tmp_path / "a", tmp_path / "kinds.json"
    path.write_bytes(file(HARD[name], 3500 if name == "motion modules" else 4))
    kinds.write_text(json.dumps(model_types.to_json()))
    done = subprocess.run(
        [sys.executable, "-S", "-c", WORK, path, kinds],
        env={"PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not done.returncode, done.stderr[-2000:]
    assert float(done.stderr) < 1
    assert len(done.stdout) < 400


NUMBERS = st.integers(-2, 70) | st.integers() | st.floats() | st.booleans() | st.none()
ENTRIES = st.dictionaries(
    st.text(max_size=10) | st.just("__metadata__"),
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.sampled_from(["U8", "F4", "F16", "F64", "X"]) | NUMBERS,
            "shape": st.lists(NUMBERS, max_size=5) | NUMBERS | st.text(max_size=3),
            "data_offsets": st.lists(NUMBERS, max_size=3) | NUMBERS | st.text(max_size=3),
        },
    )
    | st.dictionaries(st.text(max_size=4), st.text(max_size=4) | NUMBERS, max_size=3)
    | NUMBERS,
    max_size=4,
)


@settings(max_examples=200, deadline=5000)
@given(st.binary(max_size=300) | ENTRIES.map(lambda entries: file(json.dumps(entries).encode(), 8)))
@example(file(b'{"a":{"dtype":"U8","shape":[1e400],"data_offsets":[0,1]}}', 1))
@example(file(b'{"a":{"dtype":"U8","shape":"1","data_offsets":"01"}}', 1))
@example(file(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,9]}}', 1))
@example(file(b'{"a":{"dtype":"F4","shape":[-0],"data_offsets":[0,0]}}', 0))
@example(file(b"{\x00}"))
def test_any_bytes_are_a_header_or_one_sentence(content: bytes) -> None:
    said = ""
    try:
        TYPES.of(safetensors_header.parse(content, len(content)))
    except RefusedError as refused:
        said = str(refused)
    assert "\n" not in said
    assert len(said) < 400
