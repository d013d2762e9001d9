"""`fetch` as a pod runs it: a process of its own, killed, starved, refused, and never in the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import ssl
import subprocess
import threading
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from fakes.pod import CHUNK, Pod, huggingface, row
from servers.hub import Hub
from servers.hub_content import generate
from servers.hub_faults import Fault

from pod.commands import fetch
from pod.downloads import disk_space, download, job, journaled_copy, partial_file, queue, terminal
from pod.downloads.states import State
from pod.downloads.terminal import Display
from pod.downloads.worker_pool import WorkerPool
from pod.model_refs import model_ref, models_json
from pod.net.http import RefusedError
from pod.net.hubs import Hubs
from pod.resolve.hashes import Resolved
from pod.resolve.model_facts import Facts
from pod.util.file_lease import STALE, FileLease
from podkiln.config import model_types

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from servers.hub_content import HubFile

FACTS = Facts(model_types.to_json)

SIZE = 1_500_000
CONNECTIONS = 4
SOCKETS = 96 * 1024  # bytes on their way, which the hub counts as sent and a killed client never read
CANARY = "hf_canary0123456789"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as running:
        yield running


@pytest.fixture
def pod(tmp_path: Path, hub: Hub) -> Pod:
    return Pod(tmp_path, hub)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def offer_one(pod: Pod, size: int = SIZE, **changes: Any) -> HubFile:
    file = pod.hub.add("org/repo", "weights.safetensors", size)
    pod.offer({"m": [row(file, huggingface(file), **changes)]})
    return file


def test_enabled_models_are_fetched_into_their_folders(pod: Pod) -> None:
    one = pod.hub.add("org/one", "unet/a.safetensors", 300_000)
    two = pod.hub.add("org/two", "b.safetensors", 200_000, seed=1)
    off = pod.hub.add("org/off", "c.safetensors", 2000)
    pony = pod.hub.add_civitai(290640, "pony.safetensors", generate(100_000, 2), token="cv")
    plain = pod.hub.add_file("d.ckpt", b"a listed pickle")
    pod.offer(
        {
            "one": [row(one, huggingface(one, "org/one"), "diffusion_models")],
            "two": [row(two, huggingface(two, "org/two"), "loras/style", name="renamed.safetensors")],
            "pony": [row(pony, {"kind": "civitai", "version": 290640})],
            "plain": [row(plain, {"kind": "https", "url": f"{pod.hub.url}/files/d.ckpt"}, name="d.ckpt")],
            "off": [row(off, huggingface(off, "org/off"))],
        },
        enabled=["one", "two", "pony", "plain"],
    )
    code, said = pod.fetch(settings={"CIVITAI_TOKEN": "cv"})
    assert code == 0, said
    expected = {
        "diffusion_models/a.safetensors": one,
        "loras/style/renamed.safetensors": two,
        "checkpoints/pony.safetensors": pony,
        "checkpoints/d.ckpt": plain,
    }
    found = {
        str(p.relative_to(pod.models))
        for p in pod.models.rglob("*")
        if p.is_file() and ".podkiln" not in p.parts
    }
    assert found == expected.keys()
    assert all(sha256(pod.models / place) == file.sha256 for place, file in expected.items())
    assert said.splitlines()[-1] == "fetch: 4 fetched (600 kB), 0 already there, 0 failed, of 4 files"
    assert pod.state()["state"] == "done"
    assert not pod.left_over()


def test_nothing_is_fetched_twice(pod: Pod) -> None:
    offer_one(pod)
    assert pod.fetch()[0] == 0
    hits = len(pod.hub.hits)
    code, said = pod.fetch()
    assert (code, len(pod.hub.hits)) == (0, hits)
    assert "0 fetched (0 B), 1 already there" in said


def test_a_model_by_name_and_its_optional_files(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.safetensors", 2000)
    extra = pod.hub.add("org/repo", "b.safetensors", 2000, seed=1)
    pod.offer(
        {"m": [row(file, huggingface(file)), row(extra, huggingface(extra), optional=True)]}, enabled=[]
    )
    assert "of 0 files" in pod.fetch()[1]
    assert "1 fetched (2 kB), 0 already there, 0 failed, of 1 files" in pod.fetch("m")[1]
    assert "1 fetched (2 kB), 1 already there" in pod.fetch("m", "--optional")[1]


def test_a_model_by_name_whose_node_is_left_out_says_how_to_load_it(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.safetensors", 2000)
    pod.offer({"m": [row(file, huggingface(file))], "other": []}, enabled=[])
    decision = json.loads((pod.run / "decision.json").read_text())
    left: dict[str, object] = {"models": ["m"], "loaded": False, "own": False, "switch": "ENABLE_M=true"}
    nodes = [
        {**left, "id": "on", "loaded": True},
        {**left, "id": "off"},
        {**left, "id": "mine", "own": True, "switch": ""},
        {**left, "id": "kept-out", "switch": "", "why": "COMFYUI_ARGS leave it out"},
    ]
    (pod.run / "decision.json").write_text(json.dumps({**decision, "nodes": nodes}))
    hint = "m needs the custom node off, which is not loaded: start the pod with NODES=off"
    said = pod.fetch("m")[1]
    assert hint in said
    assert "kept-out, which is not loaded: COMFYUI_ARGS leave it out" in said
    assert said.count("needs the custom node") == 2
    assert "custom node" not in pod.fetch()[1], "the start has said it"


def test_one_failure_does_not_cost_the_others(pod: Pod) -> None:
    good = pod.hub.add("org/repo", "good.safetensors", 200_000)
    gone = pod.hub.add("org/repo", "gone.safetensors", 2000, seed=1)
    pickle = pod.hub.add("org/repo", "loose.pt", 2000)
    pod.hub.fault(Fault("status", "gone", "hub", status=410, times=-1))
    unlisted = row(pickle, huggingface(pickle), sha256=None, size=None)
    pod.offer({"m": [row(gone, huggingface(gone)), unlisted, row(good, huggingface(good))]})
    code, said = pod.fetch()
    assert code == 1
    assert sha256(pod.models / "checkpoints/good.safetensors") == good.sha256
    errors = {file["file"]: file["error"] for file in pod.state()["files"] if file["state"] == "failed"}
    assert set(errors) == {"checkpoints/gone.safetensors", "checkpoints/loose.pt"}
    for error in errors.values():
        assert said.count(f"fetch: m: {error}.\n") == 1
    assert "1 fetched (200 kB), 0 already there, 2 failed, of 3 files" in said
    assert "Traceback" not in said
    assert pod.fetch("--status")[0] == 1


def test_an_unresolved_file_is_pinned_by_the_first_start(pod: Pod) -> None:
    first = pod.hub.add("org/repo", "a.safetensors", 200_000)
    commit = pod.hub.repositories["org/repo"].head
    pod.offer({"m": [row(first, huggingface(first), sha256=None, size=None)]})
    assert pod.fetch()[0] == 0
    pod.hub.add("org/repo", "a.safetensors", 200_000, seed=9)
    (pod.models / "checkpoints/a.safetensors").unlink()
    assert pod.fetch()[0] == 0
    assert sha256(pod.models / "checkpoints/a.safetensors") == first.sha256
    assert {hit.path.split("/")[4] for hit in pod.hub.hits if "/resolve/" in hit.path} == {commit}


def test_an_unresolved_file_that_is_there_survives_a_dead_hub(pod: Pod) -> None:
    file = pod.hub.add("org/repo", "a.safetensors", 2000)
    pod.offer({"m": [row(file, huggingface(file), sha256=None, size=None)]})
    (pod.models / "checkpoints").mkdir(parents=True)
    (pod.models / "checkpoints/a.safetensors").write_bytes(bytes(file.content))
    pod.hub.fault(Fault("status", where="hub", status=404, times=-1))
    code, said = pod.fetch()
    assert code == 0
    assert "is there, unchecked" in said


def claimed(pod: Pod) -> set[int]:
    """Return the chunks that the journal claims."""
    lines = [line for path in pod.workspace.rglob("*.state") for line in path.read_text().splitlines()[1:]]
    return {int(line) for line in lines if line.isdigit()}


@pytest.mark.parametrize("seed", range(3))
def test_kill_9_at_any_moment_then_again(pod: Pod, seed: int) -> None:
    """What was claimed is not fetched again, and each connection loses no more than the chunk it was at."""
    size, chunk = 2 * SIZE, 24 * 1024  # which no send of the hub fills
    file = offer_one(pod, size)
    settings = {"FETCH_CONNECTIONS": str(CONNECTIONS), "PODKILN_FETCH_CHUNK": str(chunk)}
    moments = random.Random(seed)
    claims: set[int] = set()
    for _ in range(3):
        pod.hub.rate, before = 400_000, len(pod.hub.hits)
        with pod.start(settings=settings) as process:
            while not ranges(pod.hub, before) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0.0, 0.4))
            process.kill()
        had, claims = claims, claimed(pod)
        assert had <= claims
        for offset, sent in ranges(pod.hub, before):
            touched = range(offset // chunk, (offset + sent) // chunk)
            assert not had & set(touched)
            assert len(set(touched) - claims) * chunk <= chunk + SOCKETS
    pod.hub.rate, before = 0, len(pod.hub.hits)
    start = time.monotonic()
    code, said = pod.fetch(settings=settings)
    assert code == 0, said
    assert sha256(pod.models / "checkpoints" / file.name) == file.sha256
    assert time.monotonic() - start < 10  # nobody waits for the dead process's lease
    assert sum(sent for _, sent in ranges(pod.hub, before)) == sum(
        min(chunk, size - n * chunk) for n in range(-(-size // chunk)) if n not in claims
    )
    assert not pod.left_over()


def ranges(hub: Hub, since: int) -> list[tuple[int, int]]:
    """Return where each answer with bytes began, and how many left."""
    hits = [hit for hit in hub.hits[since:] if hit.file and hit.sent and hit.range]
    return [(int(hit.range.removeprefix("bytes=").split("-")[0]), hit.sent) for hit in hits if hit.range]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_at_once_and_goes_on_later(pod: Pod, number: signal.Signals) -> None:
    file = offer_one(pod)
    pod.hub.rate = 200_000
    with pod.start() as process:
        while pod.hub.served() < 3 * CHUNK:
            time.sleep(0.01)
        start = time.monotonic()
        process.send_signal(number)
        said = process.communicate()[0]
        assert time.monotonic() - start < 2
    assert process.returncode == 143
    assert "stopped; what has arrived is kept" in said
    assert "Traceback" not in said
    assert pod.state()["state"] == "stopped"
    assert sorted(pod.left_over()) == [f"{file.name}.part", f"{file.name}.state"]
    pod.hub.rate = 0
    assert pod.fetch()[0] == 0


def test_it_stops_while_the_hub_hangs(pod: Pod) -> None:
    offer_one(pod)
    pod.hub.fault(Fault("hang", after=1000, times=-1))
    with pod.start() as process:
        while not pod.hub.served():
            time.sleep(0.01)
        start = time.monotonic()
        process.terminate()
        process.communicate()
        assert time.monotonic() - start < 2


@pytest.mark.parametrize("count", [2, 4])
def test_pods_on_one_volume_fetch_each_byte_once(tmp_path: Path, hub: Hub, count: int) -> None:
    """They share the files out, and wait for what another is fetching."""
    files = [hub.add("org/repo", f"{n}.safetensors", 200_000, seed=n) for n in range(5)]
    hub.rate = 1_000_000
    pods = [Pod(tmp_path / str(n), hub, tmp_path / "volume") for n in range(count)]
    for pod in pods:
        pod.offer({"m": [row(file, huggingface(file)) for file in files]})
    processes = [pod.start() for pod in pods]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, said
    assert hub.served() == 1_000_000
    assert all(sha256(pods[0].models / "checkpoints" / file.name) == file.sha256 for file in files)
    assert {file["state"] for pod in pods for file in pod.state()["files"]} <= {"fetched", "present"}
    assert all(text.count("waiting for it") <= len(files) for text in said)  # said once, not each second
    assert not pods[0].left_over()


def test_a_pod_takes_over_from_one_that_was_killed(tmp_path: Path, hub: Hub) -> None:
    file = hub.add("org/repo", "a.safetensors", SIZE)
    hub.rate = 60_000
    first, second = (Pod(tmp_path / name, hub, tmp_path / "volume") for name in ("first", "second"))
    for pod in (first, second):
        pod.offer({"m": [row(file, huggingface(file))]})
    with contextlib.ExitStack() as pods:
        killed = pods.enter_context(first.start())
        while not hub.served():  # it has the lease
            time.sleep(0.01)
        heir = pods.enter_context(second.start())
        while hub.served() < 4 * CHUNK:
            time.sleep(0.01)
        time.sleep(0.3)  # the second one waits by now
        assert killed.poll() is None
        killed.kill()
        hub.rate = 0
        said = heir.communicate(timeout=STALE / 2)[0]  # at once, not when the lease has grown stale
    assert heir.returncode == 0, said
    assert sha256(second.models / "checkpoints/a.safetensors") == file.sha256
    assert hub.served() <= SIZE + 16 * (CHUNK + SOCKETS)


def test_a_file_of_the_wrong_size_or_hash_is_replaced(pod: Pod) -> None:
    file = offer_one(pod)
    place = pod.models / "checkpoints" / file.name
    for data in (b"half a file", b"\0" * SIZE):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        code, said = pod.fetch()
        assert code == 0
        assert "moved aside" in said
        assert sha256(place) == file.sha256


def test_verify_hashes_everything_and_replaces_what_is_wrong(pod: Pod) -> None:
    """Baked, on the volume and right, on the volume and wrong, not there: for all models, enabled or not."""
    files = [pod.hub.add("org/repo", f"{n}.safetensors", 100_000, seed=n) for n in range(4)]
    baked, right, wrong, absent = files
    pod.offer({file.name: [row(file, huggingface(file))] for file in files}, enabled=[right.name, wrong.name])
    assert pod.fetch()[0] == 0
    (pod.root / "baked/checkpoints").mkdir(parents=True)
    (pod.root / "baked/checkpoints" / baked.name).write_bytes(bytes(baked.content))
    place = pod.models / "checkpoints" / wrong.name
    stamp = place.stat()
    with place.open("r+b") as handle:
        handle.write(b"\xff")
    os.utime(place, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as when a disk spoils it
    before = len(pod.hub.hits)
    assert "2 already there" in pod.fetch()[1]  # size and record are all that a start looks at
    code, said = pod.fetch("--verify")
    assert code == 0, said
    assert f"{place} has sha256:" in said
    assert "moved aside to 2.safetensors.corrupt-" in said
    assert said.endswith("fetch: 1 fetched (100 kB), 2 checked and right, 0 failed, of 3 files\n")
    assert {hit.file for hit in pod.hub.hits[before:] if hit.file} == {wrong.name}
    assert sha256(place) == wrong.sha256
    assert not (pod.models / "checkpoints" / absent.name).exists()
    assert len(list(place.parent.glob("*.corrupt-*"))) == 1


def test_verify_finds_a_baked_file_that_is_wrong(pod: Pod) -> None:
    """The image cannot be written, so the right one comes to the volume, where ComfyUI looks first."""
    file = offer_one(pod)
    baked = pod.root / "baked/checkpoints" / file.name
    baked.parent.mkdir(parents=True)
    baked.write_bytes(b"\0" * SIZE)
    assert "1 already there" in pod.fetch()[1]
    code, said = pod.fetch("--verify")
    assert code == 0, said
    assert f"{baked} has sha256:" in said
    assert "fetched again, beside the image" in said
    assert baked.exists()
    place = pod.models / "checkpoints" / file.name
    assert sha256(place) == file.sha256
    assert pod.fetch()[0] == 0
    assert pod.state()["files"][0]["path"] == str(place)


def test_verify_of_one_model(pod: Pod) -> None:
    files = [pod.hub.add("org/repo", f"{n}.safetensors", 2000, seed=n) for n in range(2)]
    pod.offer({file.name: [row(file, huggingface(file))] for file in files})
    assert pod.fetch()[0] == 0
    assert (
        "0 fetched (0 B), 1 checked and right, 0 failed, of 1 files"
        in pod.fetch("--verify", files[1].name)[1]
    )


def test_the_order_smallest_first_or_as_named_and_optional_ones_last(pod: Pod) -> None:
    sizes = {"large": 90_000, "small": 3000, "middle": 30_000}
    files = {name: pod.hub.add("org/repo", f"{name}.safetensors", size) for name, size in sizes.items()}
    extra = pod.hub.add("org/repo", "extra.safetensors", 2000)
    models = {name: [row(file, huggingface(file))] for name, file in files.items()}
    models["small"].append(row(extra, huggingface(extra), optional=True))
    pod.offer(models)

    def order(*words: str) -> list[str]:
        shutil.rmtree(pod.models, ignore_errors=True)
        before = len(pod.hub.hits)
        assert pod.fetch(*words, settings={"FETCH_JOBS": "1", "FETCH_CONNECTIONS": "1"})[0] == 0
        return list(dict.fromkeys(hit.file.partition(".")[0] for hit in pod.hub.hits[before:] if hit.file))

    assert order() == ["small", "middle", "large"]
    assert order("--optional") == ["small", "middle", "large", "extra"]
    assert order("middle", "large", "small") == ["middle", "large", "small"]


def test_a_large_file_is_not_kept_waiting_by_those_behind_it(pod: Pod) -> None:
    """The first file of a run is there first: it gets all connections but one or two."""
    files = [pod.hub.add("org/repo", f"{n}.safetensors", SIZE + n, seed=n) for n in range(3)]
    pod.offer({str(n): [row(file, huggingface(file))] for n, file in enumerate(files)})
    pod.hub.rate = 400_000
    assert pod.fetch("0", "1", "2", settings={"FETCH_CONNECTIONS": "8"})[0] == 0
    begun = [hit.file for hit in pod.hub.hits if hit.file]
    first_of_last = begun.index("2.safetensors")
    assert begun[:first_of_last].count("0.safetensors") >= begun.count("0.safetensors") * 0.8


def test_many_small_files_go_side_by_side_on_kept_connections(pod: Pod) -> None:
    files = [pod.hub.add("org/repo", f"{n:02}.safetensors", 20_000, seed=n) for n in range(40)]
    pod.offer({"m": [row(file, huggingface(file)) for file in files]})
    pod.hub.rate = 200_000
    start = time.monotonic()
    assert pod.fetch()[0] == 0
    assert time.monotonic() - start < 3  # one after the other, the bytes alone take 4 s
    for where in ("hub", "cdn"):
        assert len({hit.peer for hit in pod.hub.hits if hit.where == where}) <= 16


def test_a_staged_file_survives_kill_9_like_any_other(pod: Pod) -> None:
    """It grows on another disk; what arrived there is not fetched again, and only the copy is made anew."""
    file = offer_one(pod)
    staged = pod.root / "local"
    settings = {"FETCH_STAGING": str(staged), "PODKILN_FETCH_CHUNK": "16384", "FETCH_CONNECTIONS": "2"}
    pod.hub.rate = 300_000
    with pod.start(settings=settings) as process:
        while pod.hub.served() < SIZE // 3:
            time.sleep(0.01)
        process.kill()
    assert list(staged.glob(f"checkpoints/{file.name}.*.part"))
    assert not (pod.models / "checkpoints" / file.name).exists()
    before, pod.hub.rate = pod.hub.served(), 0
    code, said = pod.fetch(settings=settings)
    assert code == 0, said
    assert f"fetching, staged in {staged}/checkpoints" in said
    assert sha256(pod.models / "checkpoints" / file.name) == file.sha256
    assert pod.hub.served() - before < SIZE - SIZE // 3 + 2 * (16384 + SOCKETS)
    assert not list(staged.rglob("*.*"))
    assert not list(pod.workspace.rglob("*.copy"))


def test_a_full_disk_is_one_sentence_and_costs_nothing_else(pod: Pod) -> None:
    """RLIMIT_FSIZE plays the full disk, so that nobody must mount one."""
    small = pod.hub.add("org/repo", "small.safetensors", 100_000)
    large = pod.hub.add("org/repo", "large.safetensors", SIZE)
    pod.offer({"m": [row(large, huggingface(large)), row(small, huggingface(small))]})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, hard))
    try:
        code, said = pod.fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert "checkpoints/large.safetensors does not fit: " in said
    assert "Traceback" not in said
    assert (pod.models / "checkpoints/small.safetensors").exists()
    assert pod.fetch()[0] == 0


def inside(pod: Pod, monkeypatch: pytest.MonkeyPatch, **settings: str) -> queue.Fetcher:
    """Return the fetcher of a pod, to be run in this process, where things can be replaced."""
    for name, value in pod.environment(**settings).items():
        monkeypatch.setenv(name, value)
    models = models_json.read(pod.image / "models.json")
    hubs = Hubs.from_environment(os.environ)
    files = models_json.wanted(models, list(models))
    shown = Display()
    store = fetch.store(os.environ, shown.say)
    policy = fetch.policy(os.environ, store)
    return queue.Fetcher(files, store, hubs, policy, pod.run / "fetch.json", FACTS, display=shown)


def test_all_files_share_the_threads_of_one_pool(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that looked for work before their pool was known once made another one for it."""
    pools: list[int] = []

    class Counted(WorkerPool):
        def __init__(self, count: int, begin: Callable[[], Callable[[], None] | None] | None = None) -> None:
            pools.append(count)
            super().__init__(count, begin)
            time.sleep(0.1)  # all its threads have looked for work by then

    monkeypatch.setattr(queue, "WorkerPool", Counted)
    monkeypatch.setattr(download, "WorkerPool", Counted)
    file = offer_one(pod)
    assert inside(pod, monkeypatch, FETCH_CONNECTIONS="3").run(2) == 0
    assert sha256(pod.models / "checkpoints" / file.name) == file.sha256
    assert pools == [3]


@pytest.mark.parametrize("stop", ["stopped", "killed"])
def test_a_staged_file_survives_its_container(pod: Pod, monkeypatch: pytest.MonkeyPatch, stop: str) -> None:
    """A container's disk is wiped when its pod is stopped; what was copied to the volume by then goes on."""
    file = offer_one(pod)
    staged = pod.root / "local"
    settings = {"FETCH_STAGING": str(staged), "PODKILN_FETCH_CHUNK": "16384", "FETCH_CONNECTIONS": "2"}
    monkeypatch.setattr(journaled_copy, "FLUSH", 65536)
    pod.hub.rate = 300_000
    running = inside(pod, monkeypatch, **settings)
    state = pod.models / f"checkpoints/.podkiln/{file.name}.state"
    halt = threading.Thread(target=halted, args=(running, state, 500_000 // 16384), daemon=True)
    halt.start()
    assert running.run(1) == 143
    halt.join()
    shutil.rmtree(staged)
    if stop == "killed":  # nobody released the lease
        (state.parent / f"{file.name}.lock").write_text('{"owner": "x", "flock": true, "boot": "gone"}')
        monkeypatch.setattr("pod.util.file_lease.STALE", 0.1)
        monkeypatch.setattr(FileLease.__init__, "__kwdefaults__", {"heartbeat": 5.0, "stale": 0.1})
    before, pod.hub.rate = pod.hub.served(), 0
    assert inside(pod, monkeypatch, **settings).run(1) == 0
    assert sha256(pod.models / "checkpoints" / file.name) == file.sha256
    assert pod.hub.served() - before <= SIZE - 500_000 + 65536 + 2 * 16384
    assert [path.name for path in state.parent.iterdir()] == [f"{file.name}.verified.json"]


def halted(running: queue.Fetcher, state: Path, chunks: int) -> None:
    """Stop a fetch once so many chunks of its copy are safe."""
    marks = [0]
    while max(marks) < chunks:
        time.sleep(0.01)
        marks += map(int, re.findall(r"(?m)^=(\d+)$", state.read_text()) if state.exists() else ())
    running.stop()


def test_a_local_disk_that_fills_up_costs_speed_not_the_file(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Others write there too. The volume has room: it is not what is blamed, and the file goes on there."""
    file = offer_one(pod)
    staged = pod.root / "local"
    write = partial_file.PartialFile.write

    def full(self: partial_file.PartialFile, offset: int, data: memoryview) -> None:
        if self.path.is_relative_to(staged) and self.received > SIZE // 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, offset, data)

    monkeypatch.setattr(partial_file.PartialFile, "write", full)
    monkeypatch.setattr(journaled_copy, "FLUSH", 65536)
    settings = {"FETCH_STAGING": str(staged), "PODKILN_FETCH_CHUNK": "16384"}
    assert inside(pod, monkeypatch, **settings).run(1) == 0
    assert sha256(pod.models / "checkpoints" / file.name) == file.sha256
    said = capsys.readouterr().err
    assert f"{staged}/checkpoints is full, so it goes on at its place" in said
    assert "larger volume" not in said
    assert not list(staged.rglob("*.*"))


def test_a_model_in_an_older_layout_is_not_fetched(pod: Pod) -> None:
    """`decide` found ComfyUI's own folder on the volume, and ComfyUI reads it."""
    file = offer_one(pod)
    older = pod.workspace / "ComfyUI/models"
    (older / "checkpoints").mkdir(parents=True)
    (older / "checkpoints" / file.name).write_bytes(bytes(file.content))
    decision = json.loads((pod.run / "decision.json").read_text())
    decision["volume"] = {"models": [str(older)]}
    (pod.run / "decision.json").write_text(json.dumps(decision))
    code, said = pod.fetch()
    assert code == 0, said
    assert "0 fetched (0 B), 1 already there" in said
    assert pod.hub.served() == 0


def test_a_disk_that_is_too_small_is_said_before_a_byte_is_written(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = offer_one(pod)
    running = inside(pod, monkeypatch)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=100, f_frsize=4096))
    assert running.run(1) == 1
    assert (
        f"checkpoints/{file.name} needs 2 MB more, but {disk_space.mount_point(pod.root)} has 410 kB free"
        in capsys.readouterr().err
    )
    assert not pod.left_over()


def test_waiting_for_another_pod_is_said_once(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = offer_one(pod)
    other = FileLease(pod.models / f"checkpoints/.podkiln/{file.name}.lock")
    assert other.acquire()
    monkeypatch.setattr(job, "BUSY_SECONDS", 0.05)
    threading.Timer(0.5, other.release).start()
    assert inside(pod, monkeypatch).run(1) == 0
    assert capsys.readouterr().err.count("waiting for it") == 1


def test_the_log_says_how_far_each_file_is(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer_one(pod)
    pod.hub.rate = 200_000
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.3)
    assert inside(pod, monkeypatch).run(1) == 0
    line = re.compile(r"fetch: m: checkpoints/weights\.safetensors: fetching, .* of 2 MB, .*/s, .* s left")
    said = capsys.readouterr().err
    assert line.search(said)
    assert said.count("\n") < 15


def test_a_pod_that_was_taken_for_dead_publishes_nothing(pod: Pod) -> None:
    """It was frozen for a while, and another one took over its file."""
    file = offer_one(pod)
    pod.hub.rate = 100_000
    with pod.start() as process:
        while not pod.hub.served():
            time.sleep(0.01)
        lock = pod.models / f"checkpoints/.podkiln/{file.name}.lock"
        lock.unlink()
        lock.write_text('{"owner": "another"}')
        pod.hub.rate = 0
        said = process.communicate()[0]
    assert process.returncode == 1
    assert "is being fetched by another pod, which took this one for dead" in said
    assert not (pod.models / "checkpoints" / file.name).exists()
    assert lock.exists()


def without_override() -> tuple[str, ...]:
    """Root ignores permissions, unless it is told not to."""
    if os.geteuid():
        return ()
    return ("setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override")


def test_a_volume_that_cannot_be_written_is_one_sentence(pod: Pod) -> None:
    file = offer_one(pod)
    pod.workspace.chmod(0o555)
    code, said = pod.fetch(prefix=without_override())
    assert code == 1
    assert (
        f"checkpoints/{file.name} cannot be written below {pod.models}/checkpoints: permission denied" in said
    )
    assert not pod.hub.hits


def test_what_lies_on_a_read_only_volume_is_used(pod: Pod) -> None:
    file = offer_one(pod)
    folder = pod.models / "checkpoints"
    folder.mkdir(parents=True)
    (folder / file.name).write_bytes(bytes(file.content))
    for path in (folder, pod.models, pod.workspace):
        path.chmod(0o555)
    code, said = pod.fetch(prefix=without_override())
    assert code == 0, said
    assert not pod.hub.hits


@pytest.mark.parametrize("planted", ["link", "file", "folder for the lease", "read-only"])
def test_what_cannot_be_leased_is_hashed_all_the_same(pod: Pod, planted: str) -> None:
    """Who writes the volume must not choose what is hashed."""
    file = offer_one(pod)
    folder = pod.models / "checkpoints"
    folder.mkdir(parents=True)
    (folder / file.name).write_bytes(b"x" * file.size)
    (pod.root / "elsewhere").mkdir()
    match planted:
        case "link":
            (folder / ".podkiln").symlink_to(pod.root / "elsewhere")
        case "file":
            (folder / ".podkiln").write_text("")
        case "folder for the lease":
            (folder / f".podkiln/{file.name}.lock").mkdir(parents=True)
        case _:
            for path in (folder, pod.models, pod.workspace):
                path.chmod(0o555)
    code, said = pod.fetch(prefix=without_override() if planted == "read-only" else ())
    assert code == 1, said
    assert {each["state"] for each in pod.state()["files"]} == {"failed"}
    if planted != "read-only":
        assert f"{folder}/.podkiln" in pod.state()["files"][0]["error"]
        assert "remove it" in said


@pytest.mark.parametrize("brought", [True, False])
def test_a_pod_that_was_taken_for_dead_uses_what_the_other_brought(pod: Pod, brought: bool) -> None:
    """After SIGSTOP, and SIGCONT when the lease is another's."""
    there = pod.root / "there"
    there.write_bytes(b"x")
    store = SimpleNamespace(known=lambda *_: there if brought else None)
    done: list[Any] = []
    fails = RefusedError("is being fetched by another pod")

    def fetch_it(*_: Any) -> None:
        raise fails

    late = SimpleNamespace(
        _fetch=fetch_it,
        _lease=SimpleNamespace(lost=True),
        _context=SimpleNamespace(store=store),
        _finish=lambda *what: done.append(what),
        file=None,
    )
    with contextlib.nullcontext() if brought else pytest.raises(RefusedError):
        job.DownloadJob._fetch_unless_brought(cast("job.DownloadJob", late), Resolved("sha256:", 1), None)
    assert done == ([(State.PRESENT, there)] if brought else [])


@pytest.mark.parametrize("by", ["wish's row", "file's row"])
@pytest.mark.parametrize("offline", [False, True])
def test_a_record_does_not_say_what_a_stated_commit_holds(pod: Pod, by: str, offline: bool) -> None:
    """The hub does; where it does not answer the record is taken, and that is said."""
    file = pod.hub.add("org/repo", "a.safetensors", generate(2000, safetensors=True))
    commit = pod.hub.repositories["org/repo"].head
    planted = generate(2000, 7, safetensors=True)
    place = pod.models / "loras/a.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(planted)
    found = hashlib.sha256(planted).hexdigest()
    key = f"huggingface:org/repo@{commit}/a.safetensors"
    rows: dict[str, Any] = {key: {"expected": f"sha256:{found}", "size": 2000, "revision": commit}}
    wishes: dict[str, Any] = {}
    word = f"loras=hf:org/repo@{commit}/a.safetensors"
    if by == "wish's row" or offline:
        wish = model_ref.parse("--", word)
        source = huggingface(file, revision=commit)
        wishes[wish.key] = {
            "folder": "loras",
            "name": place.name,
            "size": 2000,
            "sha256": found,
            "source": source,
        }
        rows = {} if by == "wish's row" else rows
    record = pod.workspace / ".podkiln/resolved.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"schema": 1, "files": rows, "wishes": wishes}))
    pod.offer({})
    if offline:
        pod.hub.fault(Fault("status", where="hub", status=502, times=-1))
    code, said = pod.fetch(word)
    assert ("as the volume's record has it" in said) == offline
    if offline:
        assert (code, sha256(place)) == (0, found), said
    else:
        assert code == 1, said
        assert "where another file lies" in said


@pytest.mark.parametrize(("name", "pickle"), [("a.ckpt", True), ("a.safetensors", False)])
def test_no_pickle_is_kept_unchecked(pod: Pod, name: str, pickle: bool) -> None:
    """Neither by its name nor by its contents, whoever cannot say what it must be."""
    file = pod.hub.add("org/repo", name, 2000)
    pod.offer({"m": [row(file, huggingface(file), sha256=None, size=None, pickle=pickle)]})
    (pod.models / "checkpoints").mkdir(parents=True)
    (pod.models / "checkpoints" / name).write_bytes(b"\x80\x04cos\nsystem\n(S'id'\ntR.")
    pod.hub.fault(Fault("status", where="hub", status=404, times=-1))
    code, said = pod.fetch()
    assert code == 1, said
    assert "is there, unchecked" not in said


def test_a_web_page_is_never_published(pod: Pod) -> None:
    offer_one(pod, size=2000)
    pod.hub.fault(Fault("html", times=-1))
    code, said = pod.fetch()
    assert code == 1
    assert "answered with a page (text/html) in its place" in said
    assert not list((pod.models / "checkpoints").glob("*.safetensors"))


def test_tokens_are_in_no_output_no_file_and_at_no_other_host(pod: Pod) -> None:
    """A canary in both variables, through success, refusal and a crash of the connection."""
    open_file, closed = offer_one(pod), pod.hub.add("org/closed", "b.safetensors", 2000)
    pony = pod.hub.add_civitai(7, "pony.safetensors", generate(2000), token=f"cv{CANARY}")
    pod.hub.gate("org/closed", "another")
    pod.hub.gate("org/repo", CANARY)
    pod.hub.fault(Fault("reset", after=1000, times=3))
    pod.offer(
        {
            "m": [
                row(open_file, huggingface(open_file)),
                row(closed, huggingface(closed, "org/closed")),
                row(pony, {"kind": "civitai", "version": 7}),
            ]
        }
    )
    code, said = pod.fetch(settings={"HF_TOKEN": CANARY, "CIVITAI_TOKEN": f"cv{CANARY}"})
    assert code == 1
    assert "the account of HF_TOKEN has no access; accept the licence at" in said
    assert (pod.models / "checkpoints/pony.safetensors").exists()
    assert "canary" not in said
    assert {hit.authorization for hit in pod.hub.hits if hit.where == "cdn"} == {None}
    assert not [hit.path for hit in pod.hub.hits if "canary" in hit.path]
    texts = [p for p in pod.root.rglob("*") if p.is_file() and p.suffix != ".safetensors"]
    assert not [path for path in texts if b"canary" in path.read_bytes()]
    assert {hit.authorization for hit in pod.hub.hits if "/api/download/" in hit.path} == {
        f"Bearer cv{CANARY}"
    }


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that nobody trusts yet."""
    paths = folder / "cert.pem", folder / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(paths[0]), "-keyout", str(paths[1])]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    return paths


def test_https_with_a_company_ca(tmp_path: Path) -> None:
    """An unknown authority is named with its remedy, not retried; SSL_CERT_FILE is the remedy."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert, key = certificate(tmp_path)
    tls.load_cert_chain(cert, key)
    with Hub(tls=tls) as hub:
        pod = Pod(tmp_path, hub)
        file = offer_one(pod)
        start = time.monotonic()
        code, said = pod.fetch()
        assert (code, hub.hits) == (1, [])
        assert "set SSL_CERT_FILE to its CA bundle" in said
        assert time.monotonic() - start < 5
        code, said = pod.fetch(settings={"SSL_CERT_FILE": str(cert)})
        assert code == 0, said
        assert sha256(pod.models / "checkpoints" / file.name) == file.sha256


@pytest.mark.parametrize(
    ("environment", "code", "sentence"),
    [
        ({"FETCH_JOBS": "many"}, 78, "FETCH_JOBS='many' is not a whole number from 1 to 256"),
        ({"FETCH_JOBS": "0"}, 78, "FETCH_JOBS"),
        ({"FETCH_CONNECTIONS": "-1"}, 78, "FETCH_CONNECTIONS"),
        ({"FETCH_STAGING": "here"}, 78, "FETCH_STAGING='here' is neither auto nor never"),
        ({"HF_ENDPOINT": "hub"}, 78, "HF_ENDPOINT"),
        ({"HF_TOKEN": "hf_canary canary"}, 78, "HF_TOKEN"),
        ({"PODKILN_ROOT": "/nowhere"}, 65, "/nowhere/models.json cannot be read"),
        ({"PODKILN_RUN": "/nowhere"}, 65, "/nowhere/decision.json cannot be read"),
    ],
)
def test_malformed_settings(pod: Pod, environment: dict[str, str], code: int, sentence: str) -> None:
    offer_one(pod, size=2000)
    found, said = pod.fetch(settings=environment)
    assert (found, said.count("\n")) == (code, 1)
    assert sentence in said
    assert "canary" not in said


def test_an_unknown_model_is_named(pod: Pod) -> None:
    offer_one(pod, size=2000)
    assert pod.fetch("n") == (64, "podkiln: there is no model 'n' in this image: it offers m.\n")


def test_fetch_json_while_it_runs(pod: Pod) -> None:
    offer_one(pod)
    pod.hub.rate = 60_000
    with pod.start() as process:
        while not (pod.run / "fetch.json").exists() or not pod.state()["bytes"]:
            time.sleep(0.02)
        record = pod.state()
        process.terminate()
        process.communicate()
    assert record["state"] == "running"
    assert record["files"][0]["state"] == "fetching"
    assert 0 < record["bytes"] < record["total"] == SIZE
    assert json.dumps(record).count("weights.safetensors") == 1
