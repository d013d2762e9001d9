"""One file over real sockets, by download and its transfer, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from servers.hub import Hub
from servers.hub_content import generate
from servers.hub_faults import Fault

from pod.downloads import partial_file
from pod.downloads.download import Download, StoppedError
from pod.downloads.part_journal import PartMetadata
from pod.downloads.partial_file import PartialFile
from pod.downloads.probe import DownloadTarget
from pod.downloads.progress import Progress
from pod.net.connection_pool import ConnectionPool
from pod.net.http import Limits, RefusedError
from pod.net.hubs import Hubs, request_for
from pod.net.transfer_policy import TransferPolicy
from pod.util.dataclass import replace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

SIZE = 1_300_000
CHUNK = 64 * 1024
POLICY = TransferPolicy(connections=4, chunk=CHUNK, tries=4, backoff=0.01, limits=Limits(connect=1, read=0.3))
ALWAYS = -1


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def file(hub: Hub) -> HubFile:
    return hub.add("org/repo", "unet/weights.safetensors", SIZE)


class Case:
    """A download of one file into a folder."""

    def __init__(self, hub: Hub, file: HubFile, folder: Path, token: str | None = None) -> None:
        self.hub, self.file = hub, file
        self.part = folder / "weights.safetensors.part"
        self.hubs = Hubs(hub.url, hub.url, token, token)
        self.source: dict[str, object] = {"kind": "huggingface", "repo": "org/repo", "path": file.path}
        self.size: int | None = file.size
        self.expected = f"sha256:{file.sha256}"
        self.progress = Progress("model", file.name)
        self.asked: list[int] = []

    def download(self, policy: TransferPolicy = POLICY) -> Download:
        request = request_for(self.source, self.hubs)
        goal = DownloadTarget(self.file.name, self.part, request, self.expected, self.size)
        return Download(goal, policy, self.progress, self.asked.append)

    def run(self, policy: TransferPolicy = POLICY) -> None:
        self.download(policy).run()

    def arrived(self) -> bool:
        return self.file.sha256 == hashlib.sha256(self.part.read_bytes()).hexdigest()


@pytest.fixture
def case(hub: Hub, file: HubFile, tmp_path: Path) -> Case:
    return Case(hub, file, tmp_path)


def test_several_connections_fetch_each_byte_once(case: Case) -> None:
    case.run()
    assert case.arrived()
    assert case.hub.served() == SIZE
    assert len(case.hub.downloads()) > 4
    assert case.asked == [SIZE]
    assert (case.progress.bytes, case.progress.total) == (SIZE, SIZE)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_sizes_on_both_sides_of_a_chunk(hub: Hub, tmp_path: Path, size: int) -> None:
    case = Case(hub, hub.add("org/repo", "config.bin", size), tmp_path)
    case.size = None
    if not size:
        with pytest.raises(RefusedError, match="is empty at its source"):
            case.run()
        return
    case.run()
    assert case.arrived()


HEALING = {
    "cut in the first chunk": [Fault("cut", after=10_000)],
    "cut at a chunk's end": [Fault("cut", after=CHUNK)],
    "cut three times": [Fault("cut", after=70_000, times=3)],
    "cut before the first byte": [Fault("cut", times=2)],
    "reset": [Fault("reset", after=20_000, times=3)],
    "hub busy": [Fault("status", where="hub", status=503, times=3)],
    "hub failing": [Fault("status", where="hub", status=500, times=2, skip=1)],
    "cdn failing": [Fault("status", status=502, times=2)],
    "too many requests": [Fault("status", where="hub", status=429, retry_after="0", times=3, skip=2)],
    "hangs": [Fault("hang", after=30_000, times=2)],
    "ignores ranges at first": [Fault("ignore-range")],
    "ignores ranges later": [Fault("ignore-range", skip=2)],
    "never knows ranges": [Fault("ignore-range", times=ALWAYS)],
    "never knows ranges, and cuts": [Fault("ignore-range", times=ALWAYS), Fault("cut", after=400_000)],
    "one byte flipped": [Fault("flip", after=777_777)],
    "slow and cut": [Fault("rate", rate=4_000_000, times=ALWAYS), Fault("cut", after=100_000, times=2)],
}


@pytest.mark.parametrize("faults", HEALING.values(), ids=HEALING)
def test_what_heals(case: Case, faults: list[Fault]) -> None:
    case.hub.fault(*faults)
    case.run()
    assert case.arrived()


def test_cuts_at_random_offsets_cost_little(case: Case) -> None:
    """What arrived before a cut is not fetched again, inside a chunk neither."""
    offsets = random.Random(3)
    case.hub.fault(*(Fault("cut", after=offsets.randrange(CHUNK * 3)) for _ in range(10)))
    case.run()
    assert case.arrived()
    assert case.hub.served() < SIZE + 10 * 256 * 1024


BREAKING = {
    "gated, no token": (
        None,
        [Fault("status", "", "hub", status=401, error_code="GatedRepo")],
        "set HF_TOKEN",
    ),
    "gated, no access": (
        "t",
        [Fault("status", "", "hub", status=403, error_code="GatedRepo")],
        "accept the licence",
    ),
    "bad token": ("t", [Fault("status", "", "hub", status=401)], "HF_TOKEN is wrong, expired or revoked"),
    "private": (
        None,
        [Fault("status", "", "hub", status=401, error_code="RepoNotFound")],
        "private or does not",
    ),
    "not there": (None, [Fault("status", "", "hub", status=404)], "is not there"),
    "revision": (None, [Fault("status", "", "hub", status=404, error_code="RevisionNotFound")], "revision"),
    "gone": (None, [Fault("status", "", "hub", status=410)], "is gone from"),
    "teapot": (None, [Fault("status", "", "hub", status=418)], "was refused \\(418"),
    "web page": (None, [Fault("html")], "answered with a page"),
    "json": (None, [Fault("status", status=200)], "answered with a page"),
    "too long": (None, [Fault("long-file", after=1)], f"has {SIZE + 1} bytes at its source"),
    "lies about its length": (
        None,
        [Fault("ignore-range", times=ALWAYS), Fault("short-length", after=99, times=ALWAYS)],
        f"has {SIZE + 99} bytes at its source",
    ),
    "always busy": (None, [Fault("status", "", "hub", status=429, times=ALWAYS)], "did not come in 4 tries"),
    "always hangs": (None, [Fault("hang", times=ALWAYS)], "no answer in time"),
    "always cut": (None, [Fault("cut", times=ALWAYS)], "the connection closed before the end"),
    "token revoked midway": (
        "t",
        [Fault("status", "", "hub", status=401, times=ALWAYS, skip=2)],
        "HF_TOKEN is wrong, expired or revoked",
    ),
    "never the same": (None, [Fault("flip", after=5000, times=ALWAYS)], "fetched twice, and thrown away"),
}


@pytest.mark.parametrize(("token", "faults", "sentence"), BREAKING.values(), ids=BREAKING)
def test_what_does_not_heal_is_said(
    hub: Hub, file: HubFile, tmp_path: Path, token: str | None, faults: list[Fault], sentence: str
) -> None:
    hub.fault(*faults)
    case = Case(hub, file, tmp_path, token)
    with pytest.raises(RefusedError, match=sentence) as caught:
        case.run()
    assert "\n" not in str(caught.value)
    assert "signed" not in str(caught.value)  # the CDN's query is a secret


def test_a_wrong_hash_names_both_and_leaves_nothing(case: Case) -> None:
    case.hub.fault(Fault("flip", after=5000, times=ALWAYS))
    with pytest.raises(RefusedError) as caught:
        case.run()
    flipped = bytearray(case.file.content)
    flipped[5000] ^= 1
    assert case.file.sha256 in str(caught.value)
    assert hashlib.sha256(flipped).hexdigest() in str(caught.value)
    assert not list(case.part.parent.iterdir())


def test_every_flipped_byte_is_caught(hub: Hub, tmp_path: Path) -> None:
    """Twenty offsets, the first and the last byte among them."""
    file = hub.add("org/repo", "small.safetensors", 3000)
    for offset in (0, 2999, *range(7, 2900, 160)):
        case = Case(hub, file, tmp_path)
        hub.fault(Fault("flip", after=offset, times=2))
        with pytest.raises(RefusedError, match="fetched twice, and thrown away"):
            case.run()


def test_a_file_replaced_at_the_hub_is_refused_before_its_bytes(case: Case) -> None:
    """The hub's own hash is on its redirect: nobody waits for 20 GB to learn that they are others."""
    case.hub.add("org/repo", case.file.path, SIZE, seed=1)
    with pytest.raises(RefusedError, match=f"sha256:{case.file.sha256} is listed: it was replaced there"):
        case.run()
    assert len(case.hub.downloads()) <= 1
    assert not case.part.exists()


def test_what_had_arrived_of_a_file_that_was_replaced_is_not_left(case: Case) -> None:
    """A part has the full size from its start: nobody would ever use or remove it."""
    expected = f"sha256:{case.file.sha256}"
    left = PartialFile.create(case.part, PartMetadata(SIZE, CHUNK, "etag", expected))
    left.mark_complete(0)
    del left
    case.hub.add("org/repo", case.file.path, SIZE, seed=1)
    with pytest.raises(RefusedError, match="it was replaced there"):
        case.run()
    assert not list(case.part.parent.iterdir())


def test_small_chunks_of_a_part_do_not_make_small_requests(case: Case) -> None:
    """A journal on a shared volume can say any chunk; with one of 16 bytes the requests would not end."""
    contents = PartMetadata(SIZE, 16, f'linked:"{case.file.sha256}"', case.expected)
    PartialFile.create(case.part, contents).mark_complete(0)
    case.run()
    assert case.arrived()
    assert len(case.hub.downloads()) <= 3 * SIZE // CHUNK


def test_a_part_of_another_size_than_is_listed_is_begun_anew(case: Case) -> None:
    """A sparse file whose journal claims all of it would be hashed for hours."""
    left = PartialFile.create(case.part, PartMetadata(1 << 43, 1 << 43, "", case.expected))
    left.mark_complete(0)
    del left
    case.run()
    assert case.arrived()


def test_retry_after_is_obeyed(case: Case) -> None:
    case.hub.fault(Fault("status", where="hub", status=429, retry_after="1"))
    start = time.monotonic()
    case.run()
    assert time.monotonic() - start >= 1


def test_the_wait_of_a_rate_limit_header_is_obeyed(case: Case) -> None:
    """Hugging Face's way: 429 with RateLimit, and no Retry-After."""
    case.hub.fault(Fault("status", where="hub", status=429, rate_limit='"api";r=0;t=1'))
    start = time.monotonic()
    case.run()
    assert time.monotonic() - start >= 1


def test_a_file_that_changes_midway_is_never_mixed(hub: Hub, tmp_path: Path) -> None:
    """A plain server: its ETag goes along as If-Range, and another one means to begin anew."""
    case = plain(hub, tmp_path)
    hub.fault(Fault("etag", where="hub", skip=3, times=ALWAYS))
    case.run()
    assert case.arrived()
    assert {hit.status for hit in hub.downloads()} == {200, 206}
    assert hub.served() >= SIZE + 3 * CHUNK  # what came before the change was thrown away


@pytest.mark.parametrize(
    "faults",
    [
        [
            Fault("etag", where="hub", skip=3, times=ALWAYS),
            Fault("ignore-if-range", where="hub", times=ALWAYS),
        ],
        [Fault("long-file", where="hub", after=1, skip=3)],
        [Fault("wrong-range", where="hub", after=4096, skip=3)],
    ],
    ids=["another ETag", "another size", "other bytes than asked"],
)
def test_an_answer_that_does_not_continue_what_we_have_begins_anew(
    hub: Hub, tmp_path: Path, faults: list[Fault]
) -> None:
    """Noticed at once, from the headers, and not from a wrong hash at the end."""
    case = plain(hub, tmp_path)
    hub.fault(*faults)
    case.run()
    assert case.arrived()
    assert SIZE + 3 * CHUNK <= hub.served() < 2 * SIZE


def test_a_first_answer_that_does_not_begin_at_the_start_is_not_taken(hub: Hub, tmp_path: Path) -> None:
    case = plain(hub, tmp_path)
    hub.fault(Fault("wrong-range", where="hub", after=4096))
    case.run()
    assert case.arrived()
    assert hub.served() < 2 * SIZE


def plain(hub: Hub, folder: Path) -> Case:
    """Return a case with a server that is no hub and knows no hashes."""
    case = Case(hub, hub.add_file("weights.safetensors", generate(SIZE)), folder)
    case.source = {"kind": "https", "url": f"{hub.url}/files/weights.safetensors"}
    return case


def test_what_an_earlier_run_left_of_another_version_is_not_used(hub: Hub, tmp_path: Path) -> None:
    case = plain(hub, tmp_path)
    hub.fault(Fault("status", where="hub", status=404, skip=4))
    with pytest.raises(RefusedError, match="is not there"):
        case.run(replace(POLICY, connections=1))
    left = partial_file.PartialFile.recall(case.part)
    assert left
    assert left.missing < 2 * CHUNK
    before = len(hub.hits)
    hub.fault(Fault("etag", where="hub", times=ALWAYS), Fault("ignore-if-range", where="hub", times=ALWAYS))
    case.run()
    assert case.arrived()
    assert SIZE <= sum(hit.sent for hit in hub.hits[before:]) < 2 * SIZE


def test_a_part_made_for_another_hash_is_not_used(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    """The image was updated between two starts, and lists another version now."""
    Case(hub, file, tmp_path).run()
    newer = Case(hub, hub.add("org/repo", file.path, SIZE, seed=1), tmp_path)
    hub.fault(Fault("flip", after=5000))  # that there is still a second try shows that the old part took none
    newer.run()
    assert newer.arrived()


def test_a_hub_that_is_busy_gets_fewer_connections(case: Case) -> None:
    """After 429 only the lead asks again."""
    case.hub.fault(Fault("status", where="hub", status=429, skip=1, times=ALWAYS))
    with pytest.raises(RefusedError, match="answers 429"):
        case.run()
    refused = [hit for hit in case.hub.hits if hit.status == 429]
    assert len(refused) <= POLICY.connections - 1 + POLICY.tries


def test_a_connection_that_stalls_is_dropped_and_continued(case: Case) -> None:
    """It hands out bytes, so no time-out ends it; what it gave is kept, and the log says so."""
    case.hub.fault(Fault("rate", rate=120_000, times=2))
    said: list[str] = []
    case.progress.told = said.append
    start = time.monotonic()
    case.run(replace(POLICY, slowest=200_000, stall=0.3))
    assert case.arrived()
    assert time.monotonic() - start < 4
    assert case.hub.served() < SIZE + 2 * 128 * 1024
    assert [line for line in said if "127.0.0.1 gives" in line and "kB/s on one connection: dropped" in line]


def test_a_straggler_is_dropped_when_others_are_ten_times_as_fast(case: Case) -> None:
    case.hub.rate = 2_000_000
    case.hub.fault(Fault("rate", rate=80_000, skip=3))
    said: list[str] = []
    case.progress.told = said.append
    case.run(replace(POLICY, slowest=1, stall=0.4))
    assert case.arrived()
    assert len(said) == 1
    assert "kB/s on one connection: dropped" in said[0]


def test_a_server_that_only_trickles_is_given_up(case: Case) -> None:
    case.hub.fault(Fault("rate", rate=80_000, times=ALWAYS))
    with pytest.raises(RefusedError, match=r"did not come in 4 tries \(127\.0\.0\.1 gives .* kB/s"):
        case.run(replace(POLICY, slowest=4_000_000, stall=0.1))


def test_a_large_file_takes_few_connections_again_and_again(hub: Hub, tmp_path: Path) -> None:
    case = Case(hub, hub.add("org/repo", "large.safetensors", 4 * SIZE), tmp_path)
    kept = ConnectionPool()
    case.run(replace(POLICY, limits=Limits(idle=kept)))
    kept.close()
    assert case.arrived()
    assert len(hub.hits) > 20
    assert len({hit.peer for hit in hub.hits}) <= 2 * POLICY.connections


def test_a_copy_grows_with_the_hash(case: Case) -> None:
    """Staged: the part on one disk, the copy on the other, complete when the hash is known."""
    copy = case.part.parent / "volume/weights.copy"
    request = request_for(case.source, case.hubs)
    goal = DownloadTarget(case.file.name, case.part, request, case.expected, SIZE, copy)
    Download(goal, POLICY, case.progress, case.asked.append).run()
    assert case.arrived()
    assert copy.read_bytes() == case.part.read_bytes()


def test_a_copy_of_wrong_bytes_does_not_stay(case: Case) -> None:
    case.hub.fault(Fault("flip", after=5000, times=ALWAYS))
    copy = case.part.parent / "weights.copy"
    request = request_for(case.source, case.hubs)
    goal = DownloadTarget(case.file.name, case.part, request, case.expected, SIZE, copy)
    with pytest.raises(RefusedError, match="thrown away"):
        Download(goal, POLICY, case.progress, case.asked.append).run()
    assert not list(case.part.parent.iterdir())


def test_connections_come_back_after_the_hub_was_busy(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer for a while, then one more at a time."""
    monkeypatch.setattr("pod.downloads.transfer._REST", 0.05)
    case.hub.rate = 400_000
    case.hub.fault(Fault("status", where="hub", status=429, skip=1, times=3))
    start = time.monotonic()
    case.run()
    assert case.arrived()
    assert time.monotonic() - start < 2.5  # one connection takes 3.3 s


def test_stopping_wakes_a_connection_that_hangs(case: Case) -> None:
    case.hub.fault(Fault("hang", after=1000, times=ALWAYS))
    patient = case.download(replace(POLICY, limits=Limits(10, 60)))
    outcome: list[type[BaseException]] = []

    def work() -> None:
        try:
            patient.run()
        except StoppedError:
            outcome.append(StoppedError)

    thread = threading.Thread(target=work)
    thread.start()
    while not case.hub.served():
        time.sleep(0.01)
    patient.stop()
    thread.join(2)
    assert outcome == [StoppedError]


def test_a_stopped_download_goes_on_where_it_was(case: Case) -> None:
    """No byte that was claimed is asked for again."""
    case.hub.rate = 1_500_000
    first = case.download()
    stopped: list[BaseException] = []

    def work() -> None:
        try:
            first.run()
        except StoppedError as error:
            stopped.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while case.progress.bytes < SIZE // 3:
        time.sleep(0.01)
    begin = time.monotonic()
    first.stop()
    thread.join()
    assert stopped
    assert time.monotonic() - begin < 1
    left = partial_file.PartialFile.recall(case.part)
    assert left
    assert 0 < left.received < SIZE
    before, case.hub.rate = len(case.hub.hits), 0
    assert case.hub.served() - left.received <= POLICY.connections * (CHUNK + 128 * 1024)  # socket buffers
    case.run()
    assert case.arrived()
    assert sum(hit.sent for hit in case.hub.hits[before:] if hit.file) == SIZE - left.received


def test_a_complete_part_needs_no_network(case: Case) -> None:
    """Killed between the last byte and the rename: the next start only hashes."""
    case.run()
    served = len(case.hub.hits)
    case.run()
    assert len(case.hub.hits) == served


def test_a_spoilt_part_is_fetched_anew(case: Case) -> None:
    """A disk that lies about what it wrote costs one more fetch, never a wrong file."""
    case.run()
    with case.part.open("r+b") as handle:
        handle.seek(100_000)
        handle.write(b"\0" * 10)
    case.run()
    assert case.arrived()


def test_a_full_disk_is_named_and_what_arrived_is_kept(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = os.pwrite, 0

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal count
        count += len(data)
        if count > SIZE // 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(OSError, match="No space left"):
        case.run()
    monkeypatch.undo()
    left = partial_file.PartialFile.recall(case.part)
    assert left
    assert left.received
    case.run()
    assert case.arrived()


def test_no_room_is_refused_before_the_disk_is_touched(case: Case) -> None:
    def no_room(need: int) -> None:
        raise RefusedError(f"needs {need}")

    goal = DownloadTarget("w", case.part, request_for(case.source, case.hubs), case.expected, SIZE)
    with pytest.raises(RefusedError, match=f"needs {SIZE}"):
        Download(goal, POLICY, case.progress, no_room).run()
    assert not case.part.exists()


def test_the_token_reaches_the_hub_and_nobody_else(hub: Hub, file: HubFile, tmp_path: Path) -> None:
    hub.gate("org/repo", "canary")
    case = Case(hub, file, tmp_path, "canary")
    case.run()
    assert {hit.authorization for hit in hub.hits if hit.where == "hub"} == {"Bearer canary"}
    assert {hit.authorization for hit in hub.hits if hit.where == "cdn"} == {None}
    assert "canary" not in repr(case.hubs) + repr(request_for(case.source, case.hubs))


def test_a_file_outside_lfs_is_checked_by_gits_object_id(hub: Hub, tmp_path: Path) -> None:
    file = hub.add("org/repo", "tokenizer.txt", b"one\ntwo\n", lfs=False)
    case = Case(hub, file, tmp_path)
    case.expected = f"git:{file.git_oid}"
    case.run()
    assert case.arrived()
    case.expected = "git:" + "0" * 40
    with pytest.raises(RefusedError, match=f"git:{file.git_oid}"):
        case.run()
