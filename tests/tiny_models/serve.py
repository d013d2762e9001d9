"""Serve tiny models by the real server's process, and ask it as users do.

    python tests/tiny_models/serve.py FOLDER [NAME...]

Needs torch, diffusers, openai and runpod. The server runs under its supervisor, as start.sh starts it, on
local hubs and a RunPod endpoint that is played (tests/servers). FOLDER gets the models, and a pod for each
check; models that are there are used again. Prints a line for each check, and ends with 1 where one failed.
Run by hand, for it takes long: there are some fifty starts, and each imports torch. In a checkout,
PODKILN_DETECTION names a detection.json, as for check.py.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests")]
sys.path += [str(each) for each in Path("/opt/runpod").glob("lib/python3*/site-packages")]

from servers.hub import Hub  # noqa: E402
from servers.hub_faults import Fault  # noqa: E402
from servers.runpod_endpoint import ENDPOINT, KEY, Endpoint  # noqa: E402
from tiny_models import runner  # noqa: E402
from tiny_models.server_pod import TOKEN, Pod, wait  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROMPT = "a cat"
ASKED: dict[str, Any] = {
    "prompt": PROMPT,
    "num_inference_steps": 2,
    "seed": 7,
    "width": 64,
    "height": 64,
}
SLOW = {**ASKED, "num_inference_steps": 250, "width": 128, "height": 128}  # whose steps can be timed
REPOSITORY, CHECKPOINT, BASE, STYLE, VERSION = "org/tiny", "org/checkpoint", "org/base", "org/style", 200
LTX, QUANTISED = "Lightricks/LTX-Video", "org/ltx-gguf"
PIPELINE = {"MODEL_ID": REPOSITORY}
UNET = "unet/diffusion_pytorch_model.safetensors"
WARM, REQUESTS, MOST_MIB = 20, 200, 16.0
KILLS = 10  # while it is fetched and loaded, and as many while it generates
SOON = 10.0  # seconds in which a client of a server that was killed knows that
FETCHING, FETCHED, LOADED = ": fetching\n", "fetched (", "it is loaded"  # in the log
RATE = 40_000  # bytes a second of a connection to a slow hub: the fetch takes some seconds

CLIENT = """
import json, sys, runpod
runpod.api_key = sys.argv[1]
there, given = runpod.Endpoint(sys.argv[2]), json.loads(sys.argv[3])
print(json.dumps([there.run_sync({"input": each}, timeout=240) for each in given]
                 + [there.run({"input": given[0]}).output(timeout=240)]))
"""


class Bench:
    """Models, and a hub that has them. `folder`: where all is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        self.random = random.Random(16)

    def model(self, kind: str) -> Path:
        """Return a model, made where it is not there, by a process of its own: torch is not for this one."""
        folder = self.folder / "models" / kind
        if not folder.is_dir() or not any(folder.iterdir()):
            subprocess.run([sys.executable, ROOT / "tests/tiny_models/make.py", kind, folder], check=True)
        files = sorted(each for each in folder.glob("*.*") if each.suffix in {".safetensors", ".gguf"})
        return folder if (folder / "model_index.json").is_file() or not files else files[0]

    @contextlib.contextmanager
    def hub(self) -> Iterator[Hub]:
        """Yield a hub with all that is asked for here."""
        with Hub() as hub:
            for repository, kind in ((REPOSITORY, "sd15"), (BASE, "sdxl")):
                self.add(hub, repository, kind)
            file, lora = self.model("sdxl-file"), self.model("lora-kohya")
            hub.add(CHECKPOINT, file.name, file)
            hub.add(STYLE, lora.name, lora)
            hub.add_civitai(VERSION, file.name, file)
            yield hub

    def add(self, hub: Hub, repository: str, kind: str) -> None:
        """Give a hub a repository with a model."""
        folder = self.model(kind)
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            lfs = path.suffix == ".safetensors"
            hub.add(repository, path.relative_to(folder).as_posix(), path, lfs=lfs)

    def place(self, name: str) -> Path:
        """Return a new folder for pods."""
        folder = self.folder / "pods" / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def tell(self, text: str) -> None:
        """Say a figure."""
        self.told.append(text)
        print(f"    {text}", flush=True)


def generated(pod: Pod, **more: Any) -> bytes:
    """Return the picture that POST /generate answers with."""
    status, said = pod.ask("POST", "/generate", {**ASKED, **more})
    assert status == 200, said
    assert said["status"] == "COMPLETED", said
    return picture(said["output"])


def picture(output: Any) -> bytes:
    """Return the first picture of an answer."""
    content = base64.b64decode(output["images"][0]["data"])
    assert content.startswith(b"\x89PNG"), content[:40]
    return content


def openai_client(pod: Pod, **options: Any) -> Any:
    """Return OpenAI's own client."""
    import openai

    return openai.OpenAI(base_url=f"{pod.url}/v1", api_key=TOKEN, max_retries=0, **options)


def by_openai(client: Any, size: str = "64x64", **more: Any) -> bytes:
    """Return the picture that OpenAI's client gets."""
    own = {name: ASKED[name] for name in ("num_inference_steps", "seed")}
    made = client.images.generate(prompt=PROMPT, size=size, extra_body={**own, **more})
    return base64.b64decode(made.data[0].b64_json)


def by_runpod(endpoint: Endpoint, *given: Any) -> list[Any]:
    """Return what RunPod's own client gets: of each input by run_sync, and of the first one by run."""
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, KEY, ENDPOINT, json.dumps(given)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path[1:]),
            "RUNPOD_ENDPOINT_BASE_URL": f"{endpoint.url}/client",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- the checks


def check_forms(bench: Bench) -> None:
    """Five forms of MODEL_ID, each by three doors: one picture."""
    forms: dict[str, dict[str, str]] = {
        "folder at a hub": PIPELINE,
        "single file": {"MODEL_ID": f"hf:{CHECKPOINT}:sdxl.safetensors", "BASE_MODEL": BASE},
        "LoRA": {"MODEL_ID": STYLE, "BASE_MODEL": REPOSITORY},
        "CivitAI word": {"MODEL_ID": f"civitai:{VERSION // 2}@{VERSION}", "BASE_MODEL": BASE},
        "local path": {"MODEL_ID": str(bench.model("sd15"))},
    }
    seen: dict[str, bytes] = {}
    for name, variables in forms.items():
        place = bench.place(f"form-{name.split()[0]}")
        with bench.hub() as hub, Endpoint() as endpoint:
            with Pod(place, hub, variables) as pod:
                took = pod.wait_ready()
                seen[name] = generated(pod)
                with openai_client(pod) as client:
                    assert by_openai(client) == seen[name], f"{name}: OpenAI's client has another picture"
                    (listed,) = client.models.list().data
                    assert by_openai(client, model=listed.id) == seen[name]
            assert bool(hub.hits) == (name != "local path"), "it was not fetched from the hub"
            hub.hits.clear()
            with Pod(place, hub, variables, endpoint) as pod:
                routed = {
                    "openai_route": "/v1/images/generations",
                    "openai_input": {"prompt": PROMPT, "size": "64x64", "num_inference_steps": 2, "seed": 7},
                }
                for output in by_runpod(endpoint, ASKED, routed):
                    assert output, f"{name}: {[each.shown() for each in endpoint.jobs.values()]}"
                    assert picture(output) == seen[name], f"{name}: a job has another picture"
            assert endpoint.refused == []
            assert hub.hits == [], f"{name}: what is here was asked for again"
        bench.tell(
            f"{name}: {listed.id}, ready after {took:.1f} s; openai, /generate and 3 jobs: one picture"
        )
    assert seen["folder at a hub"] == seen["local path"]
    assert seen["single file"] == seen["CivitAI word"]
    assert seen["LoRA"] != seen["folder at a hub"], "the LoRA changes nothing"


def check_gguf(bench: Bench) -> None:
    """A transformer in a GGUF file, quantised, with the rest of its base's pipeline: a video."""
    file, place = bench.model("ltx-gguf"), bench.place("gguf")
    with Hub() as hub:
        bench.add(hub, LTX, "ltx-base")
        hub.add(QUANTISED, file.name, file)
        with Pod(place, hub, {"MODEL_ID": QUANTISED, "BASE_MODEL": LTX}) as pod:
            took = pod.wait_ready()
            status, said = pod.ask("POST", "/generate", {**ASKED, "width": 32, "height": 32, "num_frames": 9})
            assert status == 200, f"{said}\n{pod.said()}"
            (video,) = said["output"]["videos"]
            assert base64.b64decode(video["data"])[4:8] == b"ftyp", video["mime"]
        weights = [path for path in place.rglob("transformer/*") if path.suffix == ".safetensors"]
        assert not weights, "the base's own transformer was fetched too"
    bench.tell(f"{file.name}: ready after {took:.1f} s; a video of {len(video['data']) * 3 // 4} bytes")


def check_growth(bench: Bench) -> None:
    """200 requests in a row, by HTTP and as jobs: nothing grows."""
    style = bench.model("lora-kohya")
    variables = {"MODEL_ID": str(bench.model("sd15")), "LORAS": f"{style}=0"}
    place = bench.place("growth")
    with Pod(place, None, variables) as pod, openai_client(pod) as client:
        pod.wait_ready()
        url = f"data:image/png;base64,{base64.b64encode(generated(pod)).decode()}"
        for number in range(WARM):
            one_of_many(pod, client, number, url)
        before, course = pod.figures(), []
        for number in range(REQUESTS):
            one_of_many(pod, client, number, url)
            course += [f"{pod.figures().resident:.0f}"] if number % 40 == 39 else []
        bench.tell(f"{REQUESTS} requests: {pod.figures().grown(before, MOST_MIB)}; MiB: {', '.join(course)}")
    with Endpoint() as endpoint, Pod(place, None, variables, endpoint) as pod:
        for number in range(WARM + REQUESTS):
            shown = endpoint.end(endpoint.submit({**ASKED, "seed": number}), 300.0)
            assert shown["status"] == "COMPLETED", shown
            if number + 1 == WARM:
                before = pod.figures()
        bench.tell(f"{REQUESTS} jobs: {pod.figures().grown(before, MOST_MIB)}")


def one_of_many(pod: Pod, client: Any, number: int, url: str) -> None:
    """Ask for something, each time in another way."""
    match number % 10:
        case 0 | 1 | 2:
            by_openai(client, seed=number)
        case 3:
            generated(pod, seed=number, lora=[{"name": "kohya-style", "scale": 1.5}])
        case 4:
            generated(
                pod, seed=number, task="image-to-image", image=url, strength=0.9, width=None, height=None
            )
        case 5:
            with pod.followed({**ASKED, "previews": True}) as events:
                assert [kind for kind, _ in events][-1] == "result"
        case 6:
            status, said = pod.ask("POST", "/generate", {**ASKED, "steps": 2})
            assert (status, "steps" in said["error"]) == (400, True), said
        case 7:  # a client that goes
            with pod.followed(SLOW) as events:
                next(event for event in events if event[0] == "progress")
        case _:
            generated(pod, seed=number)


def check_kills(bench: Bench) -> None:
    """SIGKILL while it is fetched, loaded, and generates: the next start is as if nothing had been."""
    place = bench.place("kills")
    with bench.hub() as hub:
        hub.rate = RATE
        with Pod(place, hub, PIPELINE) as pod:
            begun = seen_in_log(pod, FETCHING)
            fetched = seen_in_log(pod, FETCHED)
            start = pod.wait_ready()
            whole = generated(pod)
        bench.tell(f"a start takes {start:.1f} s; it fetches from {begun:.1f} to {fetched:.1f} s")
        phases: list[str] = []
        waited: list[float] = []
        for number in range(KILLS):
            shutil.rmtree(place / "volume")
            fetches = number < KILLS // 2
            with contextlib.ExitStack() as stack:
                # By turns: the server, the whole pod (whose volume the next one gets), a worker's.
                endpoint = stack.enter_context(Endpoint()) if number % 3 == 2 else None
                pod = stack.enter_context(Pod(place, hub, PIPELINE, endpoint))
                seen_in_log(pod, FETCHING if fetches else FETCHED)
                moment = bench.random.uniform(0.0, (fetched - begun) if fetches else (start - fetched))
                end = time.monotonic() + moment
                while time.monotonic() < end and LOADED not in pod.said():  # it may be faster this time
                    time.sleep(0.02)
                phases.append(phase(pod))
                if number % 3 == 1:
                    pod.kill_all()
                    assert_whole(place, hub, complete=False)
                    pod = stack.enter_context(Pod(place, hub, PIPELINE))
                else:
                    pod.kill()
                    assert_whole(place, hub, complete=False)
                longer = bench.random.uniform(0.1, 2.0)
                if endpoint:
                    waited.append(killed_job(pod, endpoint, whole, longer))
                else:
                    pod.wait_ready()
                    assert generated(pod) == whole, "another picture after a kill"
                    waited.append(killed_request(pod, whole, longer, number))
                assert_whole(place, hub, complete=True)
            way = ("the server", "the pod", "a worker")[number % 3]
            bench.tell(f"{way}, killed in {phases[-1]!r}; and generating, known after {waited[-1]:.2f} s")
        bench.tell(f"{len(phases) + len(waited)} kills: each next start gave the same picture")


def seen_in_log(pod: Pod, words: str) -> float:
    """Wait until a pod has said something; returns the seconds since it began."""
    wait(lambda: words in pod.said(), f"it has not said {words!r}", pod.said)
    return time.monotonic() - pod.started


def phase(pod: Pod) -> str:
    """Return what the server does."""
    with contextlib.suppress(OSError):
        said = pod.ask("GET", "/health", timeout=5)[1]
        return str(said["phase"] or said["status"])
    told = [line for line in pod.said().splitlines() if line.startswith("{") and '"phase"' in line]
    return str(json.loads(told[-1])["phase"]) if told else "its first moments"


def killed_request(pod: Pod, whole: bytes, moment: float, number: int) -> float:
    """Kill it while a client waits; returns the seconds until that knows."""
    ends: list[Any] = []

    def ask() -> None:
        try:
            if number % 2:
                with pod.followed(SLOW) as events:
                    ends.append([kind for kind, _ in events])
            else:
                ends.append(pod.ask("POST", "/generate", SLOW))
        except OSError as error:
            ends.append(error)

    client = threading.Thread(target=ask, daemon=True)
    client.start()
    wait(lambda: pod.ask("GET", "/health")[1]["queue"]["running"], "it does not generate", pod.said)
    time.sleep(moment)
    assert not ends, f"it was over before: {ends}"
    begun = time.monotonic()
    pod.kill()
    client.join(SOON)
    knew = time.monotonic() - begun
    assert not client.is_alive(), "the client of a server that was killed hangs"
    assert isinstance(ends[0], OSError) or "result" not in ends[0], ends
    # The next one says in a sentence that it loads; and then it is as it was.
    said: list[str] = []

    def told() -> bool:
        with contextlib.suppress(OSError):
            status, answer = pod.ask("POST", "/generate", ASKED)
            assert status in (200, 503), answer
            said.append(answer["error"] if status == 503 else "")
        return bool(said)

    wait(told, "nobody says anything", pod.said, 60.0)
    assert str(said[0]).endswith("."), f"no sentence: {said}"
    pod.wait_ready()
    assert generated(pod) == whole, "another picture after a kill"
    return knew


def killed_job(pod: Pod, endpoint: Endpoint, whole: bytes, moment: float) -> float:
    """Kill it while it works on a job; returns the seconds until the endpoint knows."""
    assert picture(endpoint.end(endpoint.submit(ASKED), 300.0)["output"]) == whole
    job = endpoint.submit(SLOW)
    endpoint.wait(lambda: job.progress)
    time.sleep(moment)
    assert job.status == "IN_PROGRESS", job.shown()
    begun = time.monotonic()
    pod.kill()
    shown = endpoint.end(job, 120.0)
    knew = time.monotonic() - begun
    assert (shown["status"], str(shown["error"])[-1]) == ("FAILED", "."), shown
    assert picture(endpoint.end(endpoint.submit(ASKED), 300.0)["output"]) == whole
    return knew


def assert_whole(place: Path, hub: Hub, *, complete: bool) -> None:
    """See that each file on the volume is as the hub has it; once `complete`, nothing half-done is there."""
    repository = hub.repositories[REPOSITORY]
    expected = {path: file.sha256 for path, file in repository.commits[repository.head].items()}
    folder = place / "volume/models/diffusers" / REPOSITORY / repository.head
    here = [each for each in folder.rglob("*") if each.is_file() and ".podkiln" not in each.parts]
    for path in here:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        assert found == expected[path.relative_to(folder).as_posix()], f"{path} is half-written"
    locks = place / "volume/models/diffusers/locks"
    if not complete:
        # The record is the mark that all are there.
        assert len(here) > 8 or not (locks.is_dir() and any(locks.glob("*.json")))
        return
    assert any(locks.glob("*.json"))
    parts = [each.name for each in folder.rglob("*") if each.is_file() and each.suffix not in (".json", "")]
    left = [name for name in parts if "part" in name]
    assert not left, f"left behind: {left}"


def check_cancel(bench: Bench) -> None:
    """A cancelled generation ends within one step, whoever cancels it."""
    place, variables = bench.place("cancel"), {"MODEL_ID": str(bench.model("sd15"))}
    with Pod(place, None, variables) as pod:
        pod.wait_ready()

        for how in ("DELETE", "a client that goes"):
            with pod.followed(SLOW) as events:
                job, at = "", list[float]()
                while len(at) < 6:
                    kind, data = next(events)
                    job = data.get("id", job)
                    at += [time.monotonic()] if kind == "progress" else []
                step = statistics.median(later - earlier for earlier, later in pairwise(at))
                begun = time.monotonic()
                if how == "DELETE":
                    status, said = pod.ask("DELETE", f"/jobs/{job}")
                    assert (status, said["status"]) == (200, "CANCELLED"), said
                    assert [data["status"] for kind, data in events if kind == "result"] == ["CANCELLED"]
            took = freed(pod, begun)
            assert took < 1.2 * step + 0.3, f"{how}: {took:.2f} s, and a step takes {step:.2f}"
            bench.tell(f"{how}: over after {took:.2f} s; a step takes {step:.2f} s")
        with openai_client(pod, timeout=2.0) as client:
            import openai

            try:
                by_openai(client, "128x128", num_inference_steps=250)
            except openai.APITimeoutError:
                took = freed(pod, time.monotonic())
            else:
                raise AssertionError("OpenAI's client has waited")
            assert took < 1.2 * step + 0.3, f"{took:.2f} s, and a step takes {step:.2f}"
            bench.tell(f"OpenAI's client that gives up: over after {took:.2f} s")
    with Endpoint() as endpoint, Pod(place, None, variables, endpoint) as pod:
        slow = endpoint.submit(SLOW)
        endpoint.wait(lambda: len(slow.progress) > 2, 120.0)
        endpoint.cancel(slow)
        begun = time.monotonic()
        assert endpoint.end(endpoint.submit(ASKED), 60.0)["status"] == "COMPLETED"
        took = time.monotonic() - begun
        bench.tell(f"a job that the platform cancels: the next one is answered after {took:.2f} s")
        assert took < 10 * step + 3, took


def freed(pod: Pod, begun: float) -> float:
    """Return the seconds until the model generates no more."""
    wait(lambda: not pod.ask("GET", "/health")[1]["queue"]["running"], "it generates still", pod.said, 60.0)
    return time.monotonic() - begun


def check_files(bench: Bench) -> None:
    """Files that are corrupt or exchanged are stopped by their hash, in a sentence."""
    civitai = {"MODEL_ID": f"civitai:{VERSION // 2}@{VERSION}", "BASE_MODEL": BASE}
    for name, variables, fault in (
        ("of a hub", PIPELINE, Fault("flip", "diffusion_pytorch_model")),
        ("a configuration", PIPELINE, Fault("flip", "vae/config.json", "hub")),
        ("of CivitAI", civitai, Fault("flip", "sdxl.safetensors")),
        (
            "of a base",
            {"MODEL_ID": STYLE, "BASE_MODEL": REPOSITORY},
            Fault("flip", "diffusion_pytorch_model"),
        ),
        ("of a LoRA", {"MODEL_ID": REPOSITORY, "LORAS": STYLE}, Fault("flip", "kohya-style")),
    ):
        fault.times, fault.after = -1, 500 if fault.where == "hub" else 9000
        with bench.hub() as hub:
            hub.fault(fault)
            refused(bench, f"corrupt, {name}", bench.place("files"), hub, "is listed", variables)
    # Exchanged on the volume, behind podkiln's back.
    place = bench.place("files")
    with bench.hub() as hub:
        commit = hub.repositories[REPOSITORY].head
        with Pod(place, hub, PIPELINE) as pod:
            pod.wait_ready()
            whole = generated(pod)
        file = place / "volume/models/diffusers" / REPOSITORY / commit / UNET
        right = file.read_bytes()
        file.write_bytes(right[:-64] + bytes(64))
        refused(bench, "exchanged, no hub", place, None, "has changed since", PIPELINE)
        with Pod(place, hub, PIPELINE) as pod:
            pod.wait_ready()
            assert generated(pod) == whole
            assert "fetch: 1 fetched" in pod.said()
        assert file.read_bytes() == right
        bench.tell("exchanged, with the hub: that file alone was fetched again, and the picture is the same")
        # RunPod's cached model, whose blobs are named by their digest.
        cached = place / "endpoint/huggingface-cache/hub" / f"models--{REPOSITORY.replace('/', '--')}"
        for path, each in hub.repositories[REPOSITORY].commits[commit].items():
            blob = cached / "blobs" / (each.sha256 if each.lfs else each.git_oid)
            blob.parent.mkdir(parents=True, exist_ok=True)
            spoilt = bytes(each.content[:-64]) + bytes(64) if path == UNET else bytes(each.content)
            blob.write_bytes(spoilt)
            link = cached / "snapshots" / commit / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
        (cached / "refs").mkdir()
        (cached / "refs/main").write_text(commit)
        shutil.rmtree(place / "volume")
        refused(bench, "exchanged, cached", place, hub, "is damaged or was exchanged", PIPELINE)
        with Endpoint() as endpoint:
            waiting = endpoint.submit(ASKED)
            refused(bench, "as a worker", place, hub, "damaged or was", PIPELINE, endpoint)
            assert waiting.status == "IN_QUEUE", "a worker without a model has taken a job"


def refused(
    bench: Bench,
    name: str,
    place: Path,
    hub: Hub | None,
    sentence: str,
    variables: dict[str, str],
    endpoint: Endpoint | None = None,
) -> None:
    """See that a pod ends with a sentence, and tell it."""
    with Pod(place, hub, variables, endpoint) as pod:
        code = pod.wait_end(120.0)
        lines = [line for line in pod.said().splitlines() if sentence in line]
        assert code == 69, f"{name}: exit code {code}\n{pod.said()}"
        assert lines, pod.said()
        assert "Traceback" not in pod.said()
        bench.tell(f"{name}: {lines[-1]}")


CHECKS: dict[str, Callable[[Bench], None]] = {
    "forms": check_forms,
    "gguf": check_gguf,
    "growth": check_growth,
    "kills": check_kills,
    "cancel": check_cancel,
    "files": check_files,
}


def main(argv: list[str]) -> int:
    """Run the checks; returns 0, or 1 where one failed."""
    if not argv:
        print(__doc__, file=sys.stderr)
        return 64
    return runner.run(CHECKS, argv[1:], Bench(Path(argv[0]).absolute()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
