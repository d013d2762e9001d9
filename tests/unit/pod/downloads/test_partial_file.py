"""A part never claims a byte that is not written, whatever happened to the process or the machine."""

from __future__ import annotations

import errno
import json
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pod.downloads.journaled_copy import JournaledCopy, adopt
from pod.downloads.part_journal import PartMetadata, remove
from pod.downloads.partial_file import ByteRange, ClosedError, PartialFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CHUNK = 10
DATA = bytes(range(95))
CONTENTS = PartMetadata(len(DATA), CHUNK, '"etag"', "sha256:00")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".podkiln" / "weights.part"


def fill(part: PartialFile, span: ByteRange, upto: int | None = None) -> None:
    """Write a span as a connection does, up to an offset where it breaks."""
    stop = span.stop if upto is None else upto
    part.write(span.start, memoryview(DATA)[span.start : stop])
    for chunk in range(span.start // CHUNK, -(-stop // CHUNK)):
        if min((chunk + 1) * CHUNK, len(DATA)) <= stop:
            part.mark_complete(chunk)
    part.release(span, stop)


def test_spans_are_taken_in_order_and_once(path: Path) -> None:
    part = PartialFile.create(path, CONTENTS)
    spans = [part.take(25) for _ in range(5)]
    assert spans == [ByteRange(0, 30), ByteRange(30, 60), ByteRange(60, 90), ByteRange(90, 95), None]


def test_what_arrived_survives_the_process(path: Path) -> None:
    part = PartialFile.create(path, CONTENTS)
    first, second = part.take(20), part.take(20)
    assert first
    assert second
    fill(part, second, upto=37)  # one chunk and a piece
    again = PartialFile.recall(path)
    assert again
    assert again.contents == CONTENTS
    assert (again.received, again.missing) == (10, 85)
    assert [again.take(100), again.take(100)] == [ByteRange(0, 20), ByteRange(30, 95)]


def test_a_broken_connection_costs_nothing_while_we_run(path: Path) -> None:
    part = PartialFile.create(path, CONTENTS)
    span = part.take(20)
    assert span
    fill(part, span, upto=13)
    assert part.received == 13
    assert part.take(10) == ByteRange(13, 20)


def test_the_whole_is_what_was_written(path: Path) -> None:
    part = PartialFile.create(path, CONTENTS)
    while span := part.take(20):
        fill(part, span)
    assert part.take(20, wait=True) is None
    assert part.missing == 0
    assert path.read_bytes() == DATA
    assert b"".join(iter_part(part)) == DATA


def iter_part(part: PartialFile) -> list[bytes]:
    blocks: list[bytes] = []
    offset, view = 0, memoryview(bytearray(7))
    while count := part.read(offset, view):
        blocks.append(bytes(view[:count]))
        offset += count
    return blocks


def test_another_kernel_trusts_only_what_was_flushed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut, or on another host, the page cache that the rest was in is gone."""
    written = PartialFile.create(path, CONTENTS)
    written.mark_complete(3)
    written.mark_complete(1)
    written.flush()
    written.mark_complete(2)
    before = journal(path).read_bytes()
    again = PartialFile.recall(path)
    assert again
    assert again.received == 30
    journal(path).write_bytes(before)
    monkeypatch.setattr("pod.downloads.part_journal.boot_id", lambda: "another")
    other = PartialFile.recall(path)
    assert other
    assert other.received == 20
    assert other.take(100) == ByteRange(0, 10)
    assert other.take(100) == ByteRange(20, 30)


@pytest.mark.parametrize("kernel", ["", "another"])
def test_what_was_recalled_is_flushed_and_claimed_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    PartialFile.create(path, CONTENTS).mark_complete(4)
    flushed: list[int] = []
    monkeypatch.setattr("os.fdatasync", flushed.append)
    assert PartialFile.recall(path)
    assert len(flushed) == 1
    monkeypatch.setattr("pod.downloads.part_journal.boot_id", lambda: kernel)
    last = PartialFile.recall(path)
    assert last
    assert last.received == 10


def test_it_flushes_by_itself_while_bytes_arrive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pod.downloads.partial_file.FLUSH", 2 * CHUNK)
    part = PartialFile.create(path, CONTENTS)
    thread = threading.Thread(target=part.keep_flushing)
    thread.start()
    for chunk in range(9):
        part.mark_complete(chunk)
    until(lambda: b"=" in journal(path).read_bytes())
    assert thread.is_alive()
    part.mark_complete(9)
    thread.join(2)
    assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def journal(path: Path) -> Path:
    return path.with_name("weights.state")


def test_a_torn_line_of_the_journal_is_no_claim(path: Path) -> None:
    """`1` of a torn `13` must not become a claim for chunk 1, neither now nor after the next line."""
    part = PartialFile.create(path, PartMetadata(1000, CHUNK, "", ""))
    part.mark_complete(0)
    with journal(path).open("ab") as handle:
        handle.write(b"1")
    again = PartialFile.recall(path)
    assert again
    assert again.received == 10
    again.mark_complete(7)
    last = PartialFile.recall(path)
    assert last
    assert last.received == 20
    assert last.take(1000) == ByteRange(10, 70)


def test_a_journal_cut_anywhere_claims_a_beginning_of_what_it_claimed(path: Path) -> None:
    part = PartialFile.create(path, PartMetadata(400, CHUNK, "", ""))
    for chunk in random.Random(1).sample(range(40), 40):
        part.mark_complete(chunk)
    whole = journal(path).read_bytes()
    for cut in range(len(whole)):
        journal(path).write_bytes(whole[:cut])
        again = PartialFile.recall(path)
        assert (again.received if again else 0) == CHUNK * max(0, whole[:cut].count(b"\n") - 1)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda p: p.unlink(), id="no part"),
        pytest.param(lambda p: journal(p).unlink(), id="no journal"),
        pytest.param(lambda p: journal(p).write_bytes(b""), id="empty journal"),
        pytest.param(lambda p: journal(p).write_bytes(b"\0" * 500), id="zeros after a power cut"),
        pytest.param(lambda p: journal(p).write_bytes(b'{"size": 95}\n0\n'), id="another version"),
        pytest.param(lambda p: journal(p).write_bytes(b"[]\n0\n"), id="other JSON"),
        pytest.param(
            lambda p: journal(p).write_bytes(b'{"size":95,"chunk":0,"identity":"","expected":""}\n'),
            id="no chunk",
        ),
        pytest.param(lambda p: p.write_bytes(b"short"), id="cut part"),
    ],
)
def test_what_cannot_be_trusted_is_not_recalled(path: Path, damage: object) -> None:
    part = PartialFile.create(path, CONTENTS)
    part.mark_complete(0)
    assert PartialFile.recall(path)
    assert callable(damage)
    damage(path)
    assert PartialFile.recall(path) is None
    PartialFile.create(path, CONTENTS)  # and does not stand in the way


@pytest.mark.parametrize(
    "changed",
    [
        {"chunk": 1, "size": 1 << 20},
        {"chunk": 1.5},
        {"chunk": True},
        {"size": 95.0},
        {"size": 1 << 62, "chunk": 1 << 60},
        {"identity": 5},
        {"identity": None},
        {"identity": '"x\r\nX-Evil: 1'},
        {"identity": '"\u20ac"'},
        {"identity": '"' + "x" * 5000 + '"'},
        {"expected": ["sha256:00"]},
        {"expected": "sha256:00\n"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_planted_journal_is_not_recalled(path: Path, changed: dict[str, object]) -> None:
    """Anybody can write it on a shared volume, and what it says goes into requests."""
    PartialFile.create(path, CONTENTS).mark_complete(0)
    head, rest = journal(path).read_bytes().split(b"\n", 1)
    fields = {**json.loads(head), **changed}
    journal(path).write_bytes(json.dumps(fields).encode() + b"\n" + rest)
    with path.open("r+b") as part:
        part.truncate(min(int(fields["size"]), 1 << 40))
    assert PartialFile.recall(path) is None
    PartialFile.create(path, CONTENTS)


def test_claims_outside_the_file_are_ignored(path: Path) -> None:
    PartialFile.create(path, CONTENTS)
    with journal(path).open("ab") as handle:
        handle.write(b"10\n-1\nx\n\xb2\n9\n")
    again = PartialFile.recall(path)
    assert again
    assert again.received == 5  # chunk 9, the short last one


def test_closing_ends_whoever_waits(path: Path) -> None:
    part = PartialFile.create(path, CONTENTS)
    part.close()
    with pytest.raises(ClosedError):
        part.take(10, wait=True)
    with pytest.raises(ClosedError):
        part.read(0, memoryview(bytearray(1)))
    with pytest.raises(ClosedError):
        part.write(0, memoryview(b"late"))
    with pytest.raises(ClosedError):
        part.mark_complete(0)


def test_remove_takes_both_files(path: Path) -> None:
    PartialFile.create(path, CONTENTS)
    remove(path)
    remove(path)
    assert not list(path.parent.iterdir())


def trail(copy: Path, upto: int, monkeypatch: pytest.MonkeyPatch) -> JournaledCopy:
    """Write a copy up to a byte, flushing every 25."""
    monkeypatch.setattr("pod.downloads.journaled_copy.FLUSH", 25)
    made = JournaledCopy(copy, CONTENTS)
    for start in range(0, upto, 7):
        made.write(DATA[start : min(start + 7, upto)])
    return made


@pytest.mark.parametrize(("upto", "safe"), [(24, 0), (28, 20), (44, 20), (49, 40), (70, 70), (95, 90)])
def test_a_copy_becomes_a_part_as_far_as_it_was_flushed(
    path: Path, upto: int, safe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under another kernel: its container is gone, and the disk that it was copied from."""
    copy = path.with_suffix(".copy")
    trail(copy, upto, monkeypatch)
    monkeypatch.setattr("pod.downloads.part_journal.boot_id", lambda: "another")
    assert adopt(copy, path) == bool(safe)
    if safe:
        part = PartialFile.recall(path)
        assert part
        assert part.received == safe
        assert path.read_bytes()[:safe] == DATA[:safe]
        span = part.take(100)
        assert span == ByteRange(safe, 95)
        fill(part, span)
        assert path.read_bytes() == DATA


def test_a_finished_copy_is_a_whole_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = path.with_suffix(".copy")
    trail(copy, 95, monkeypatch).finish()
    assert adopt(copy, path)
    part = PartialFile.recall(path)
    assert part
    assert part.missing == 0


@pytest.mark.parametrize("lost", [".copy", ".state"])
def test_half_of_a_trail_is_nothing(path: Path, lost: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = path.with_suffix(".copy")
    trail(copy, 95, monkeypatch)
    path.with_suffix(lost).unlink()
    assert not adopt(copy, path)
    assert not path.exists()


@pytest.mark.parametrize("size", [95, 1 << 45, 1 << 62, (1 << 63) + 1, 9_999_999_999_999_999_999])
def test_a_planted_trail_is_no_part(path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal beside one byte that claims a whole file, or one of a size that no file system takes."""
    copy = path.with_suffix(".copy")
    trail(copy, 95, monkeypatch).finish()
    copy.write_bytes(b"x")
    head, rest = journal(path).read_bytes().split(b"\n", 1)
    fields = {**json.loads(head), "size": size, "chunk": max(CHUNK, size // 1000)}
    journal(path).write_bytes(json.dumps(fields).encode() + b"\n" + rest)
    assert not adopt(copy, path)
    assert not path.exists()


def test_a_size_that_the_file_system_does_not_take_is_no_part(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = path.with_suffix(".copy")
    trail(copy, 95, monkeypatch).finish()

    def refuse(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "ftruncate", refuse)
    assert not adopt(copy, path)
