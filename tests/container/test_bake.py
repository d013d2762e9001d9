"""Weights baked by the command itself, from a hub on this machine into a real registry and a real engine."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import buildkits
import pytest
import registries
from baked_variant import BIG, SMALL, bake, describe, pushing, serve
from containers import Container, docker
from images import ROOT, SUBSTITUTES, SYSTEM_CA, Image, own_cache, podkiln
from publish_process import deliver
from servers.hub import Hub
from servers.hub_faults import Fault

from podkiln.errors import IntegrityError, SourceError
from podkiln.oci import spec
from podkiln.oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("bootstrap_base")]
WEIGHTS = 2 * BIG + 2 * SMALL
KILLS = 2
LIST = ("--rm", "--network", "none", "--entrypoint", "sh")
SHA256SUM = ("-c", "sha256sum /opt/models/checkpoints/*")


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as started:
        yield started


@pytest.fixture(autouse=True)
def _sources(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)


@pytest.fixture(scope="module")
def hashes(hub: Hub) -> dict[str, str]:
    """The sha256 of each file that the hub serves."""
    return serve(hub)


@pytest.fixture(scope="module")
def variant(hashes: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return describe(tmp_path_factory.mktemp("variant"), hashes)


@pytest.fixture(scope="module")
def pushed(
    variant: Path, hub: Hub, registry: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """The image, baked and pushed by one command; the layout on disk holds its runtime."""
    return bake(variant, tmp_path_factory.mktemp("pushed") / "dist", hub, *pushing(registry()))


@pytest.fixture(scope="module")
def here(
    hub: Hub, hashes: dict[str, str], overlay2_engine: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    """The image, baked onto the disk: elsewhere, by a user of other habits, with nothing remembered.

    `--builder` says who builds it, the BuildKit of the engine of all tests; and DOCKER_HOST where it is
    loaded: into an engine with overlay2, which cannot export an image itself.
    """
    folder = tmp_path_factory.mktemp("here")
    out, report = folder / "deep" / "dist", folder / "report.json"
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    argv = [str(ROOT / "build.py"), "--variant", str(describe(folder, hashes)), *SUBSTITUTES]
    argv += ["--ca-bundle", str(SYSTEM_CA), "--out", str(out), "--report", str(report), "--load"]
    with buildkits.serve() as builder:
        environment["DOCKER_HOST"] = overlay2_engine
        done = elsewhere([*argv, "--builder", builder], environment, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(report.read_text())
    yield Image("bakes", told["image"], out / "bakes" / "image", told)
    docker("image", "rm", "--force", told["image"], host=overlay2_engine)


def elsewhere(argv: list[str], env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command under another umask, from another folder, its environment in another order."""
    turned = dict(reversed(env.items()))
    return subprocess.run(argv, env=turned, umask=0o077, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture
def runtime(pushed: Image, tmp_path: Path) -> Path:
    """A layout with the runtime alone."""
    return shutil.copytree(pushed.layout, tmp_path / "runtime", copy_function=os.link)


def sums(listed: str) -> dict[str, str]:
    """Read what sha256sum printed."""
    return {name.rpartition("/")[2]: digest for digest, name in map(str.split, listed.splitlines())}


def moved(weights: dict[str, int]) -> dict[str, int]:
    """Return what is not nothing of a report's counts."""
    return {key: count for key, count in weights.items() if count}


def assert_verified(name: str, variant: Path) -> None:
    """All in the registry is as the lock has it, but for the substitutes of every test."""
    done = podkiln("verify", name, "--variant", variant, "--deep", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert findings
    assert all("substitut" in json.dumps(finding) for finding in findings), done.stdout


def test_weights_go_from_the_hub_to_the_registry_and_not_through_here(
    pushed: Image, hashes: dict[str, str]
) -> None:
    assert pushed.report["weights"]["fetched_bytes"] == WEIGHTS
    layers = pushed.manifest()["layers"]
    assert [layer["mediaType"] for layer in layers[:3]] == [spec.LAYER] * 3
    assert not any(pushed.blob(layer["digest"]).exists() for layer in layers[:3])
    config = pushed.config()
    told = [entry for entry in config["history"] if not entry.get("empty_layer")]
    assert len(told) == len(layers) == len(config["rootfs"]["diff_ids"])
    assert told[0]["created_by"].startswith("podkiln bake acme: checkpoints/a.safetensors from huggingface:")

    listed = docker("run", *LIST, pushed.by_digest, *SHA256SUM).stdout
    docker("image", "rm", "--force", pushed.by_digest)
    assert sums(listed) == hashes


def test_a_bake_elsewhere_makes_the_same_image(pushed: Image, here: Image) -> None:
    """Another folder, umask, time zone and order of the environment; onto the disk, not into a registry."""
    assert here.digest == pushed.digest
    assert all(here.blob(layer["digest"]).exists() for layer in here.manifest()["layers"])


def test_it_is_loaded_and_runs_in_the_other_storage_mode_too(
    here: Image, hashes: dict[str, str], overlay2_engine: str
) -> None:
    """The engine of all other tests has containerd's storage; test_load.py loads small images into both."""
    options, env = ["--network", "none"], {"MODELS": "none"}
    with Container(here.name, env=env, options=options, host=overlay2_engine) as pod:
        pod.wait_log("podkiln: ready in", patience=90)
        assert sums(pod.exec("sh", *SHA256SUM).stdout) == hashes
        assert pod.exec("/usr/bin/python3", "-I", "-S", "/opt/podkiln", "health").returncode == 0
        assert pod.stop() < 10


def test_what_was_made_once_is_there_or_mounted_or_copied(
    hub: Hub, variant: Path, pushed: Image, runtime: Path, registry: Callable[[], str]
) -> None:
    """No weight source is asked; the lock remembers where layers are, and the plan says what will move."""
    served, layers = hub.served(), pushed.report["weights"]["uploaded_bytes"]
    remembered = json.loads((variant.parent / "bakes.locks" / "layers.json").read_text())
    assert len(remembered["layers"]) == 3
    one, two = pushed.name.partition("/")[0], registry()
    ways = {f"{one}/team": "existing", f"{one}/other": "mounted", f"{two}/team": "copied"}
    for where, how in ways.items():
        shown = podkiln("plan", "--variant", variant, *SUBSTITUTES, "--registry", where, "--json")
        plan = json.loads(shown.stdout)
        assert (plan["fetch_bytes"], plan["upload_bytes"]) == (0, layers if how == "copied" else 0)
        made = deliver(variant, runtime, f"{where}/podkiln:again").as_json()
        assert made["digest"] == pushed.digest
        assert moved(made["weights"]) == {f"{how}_bytes": layers}
        assert_verified(f"{where}/podkiln:again", variant)
    assert hub.served() == served


def test_what_the_user_names_is_mounted_and_copied_from(
    hub: Hub, variant: Path, pushed: Image, runtime: Path, registry: Callable[[], str], tmp_path: Path
) -> None:
    """With a lock that knows the digests, and not where the layers are."""
    own = shutil.copytree(variant.parent, tmp_path / "own") / variant.name
    memory = own.parent / "bakes.locks" / "layers.json"
    known = json.loads(memory.read_text())
    for layer in known["layers"].values():
        layer["places"] = []
    served, layers = hub.served(), pushed.report["weights"]["uploaded_bytes"]
    one, two = pushed.name.partition("/")[0], registry()
    there = Reference.parse(pushed.name).with_tag(None)
    for where, how, named in (
        (f"{one}/named", "mounted", {"mount_from": ["team/podkiln"]}),
        (f"{two}/named", "copied", {"copy_from": [str(there)]}),
    ):
        memory.write_text(json.dumps(known))
        made = deliver(own, runtime, f"{where}/podkiln:v1", **named).as_json()
        assert made["digest"] == pushed.digest
        assert moved(made["weights"]) == {f"{how}_bytes": layers}
    assert hub.served() == served


def test_weights_are_sent_from_a_spool_and_nothing_of_them_stays(
    hashes: dict[str, str], pushed: Image, runtime: Path, registry: Callable[[], str], tmp_path: Path
) -> None:
    fresh = describe(tmp_path, hashes)
    made = deliver(fresh, runtime, f"{registry()}/team/podkiln:v1", spool=tmp_path / "spool").as_json()
    assert made["digest"] == pushed.digest
    assert made["weights"]["fetched_bytes"] == WEIGHTS
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_file_that_is_not_the_locked_one_is_never_committed(
    hashes: dict[str, str], runtime: Path, registry: Callable[[], str], tmp_path: Path
) -> None:
    wrong = "f" * 64
    fresh = describe(tmp_path, {**hashes, "b.safetensors": wrong})
    with pytest.raises(IntegrityError, match=r"b\.safetensors") as said:
        deliver(fresh, runtime, f"{registry()}/team/podkiln:v1")
    assert said.value.exit_code == 12
    assert wrong in str(said.value)
    assert hashes["b.safetensors"] in str(said.value)
    assert not [name for name in remembered(tmp_path) if "b.safetensors" in name]


def test_a_build_that_is_killed_is_built_by_the_same_command(
    hub: Hub,
    hashes: dict[str, str],
    here: Image,
    registry: Callable[[], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At random moments of the build and of the bake: what is left is right, and no rubbish is."""
    cache = own_cache(tmp_path / "cache")  # without the memory of a runtime, which would not be built again
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    rng, dist, spool = random.Random(5), tmp_path / "dist", tmp_path / "spool"
    variant, options = describe(tmp_path, hashes), ("--spool", str(spool), *pushing(registry()))
    argv = [str(ROOT / "build.py"), "--variant", str(variant), *SUBSTITUTES, "--out", str(dist)]
    for number in range(KILLS):
        asked = len(hub.hits)
        with subprocess.Popen(
            [*argv, "--ca-bundle", str(SYSTEM_CA), *options], stderr=subprocess.DEVNULL
        ) as process:
            while number % 2 and len(hub.hits) == asked and process.poll() is None:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.8 if number % 2 else 5.0))
            process.send_signal(signal.SIGKILL)
    image = bake(variant, dist, hub, *options)
    assert image.digest == here.digest
    assert_verified(image.name, variant)
    weights = {layer["digest"].partition(":")[2] for layer in here.manifest()["layers"][:3]}
    assert files(here.layout.parents[1]) - files(dist) == {
        path for path in files(here.layout.parents[1]) if path.rpartition("/")[2] in weights
    }
    assert files(dist) - files(here.layout.parents[1]) == set()
    assert list(spool.iterdir()) == []


ENDS = [(signal.SIGTERM, 143, "Ended by SIGTERM"), (signal.SIGINT, 130, "Interrupted")]


@pytest.mark.parametrize(("number", "code", "sentence"), ENDS, ids=["SIGTERM", "SIGINT"])
def test_a_bake_that_is_ended_leaves_nothing_at_the_registry(
    hub: Hub,
    hashes: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    sentence: str,
) -> None:
    """As a CI job that is cancelled, or by Ctrl-C: while weights are on their way, slowly."""
    monkeypatch.setattr(hub, "rate", 5 << 20)
    asked, variant = len(hub.hits), describe(tmp_path, hashes)
    with registries.serve(tmp_path / "registry") as host:
        argv = [str(ROOT / "build.py"), "--variant", str(variant), *SUBSTITUTES, *pushing(host)]
        argv += ["--ca-bundle", str(SYSTEM_CA), "--out", str(tmp_path / "dist")]
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            while len(hub.hits) == asked and process.poll() is None:
                time.sleep(0.05)
            time.sleep(1)
            process.send_signal(number)
            begun = time.monotonic()
            _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 10
    assert process.returncode == code
    assert err.endswith(f"podkiln: {sentence}; nothing half-made was left behind.\n")
    kept = tmp_path / "registry" / "data"
    assert [file for file in kept.glob("**/_uploads/*/data") if file.is_file()] == []
    assert remembered(tmp_path).keys() <= {"acme (2 files)"}  # the large ones had not come to their end


def test_what_was_committed_before_a_failure_is_not_moved_again(
    hub: Hub, hashes: dict[str, str], runtime: Path, registry: Callable[[], str], tmp_path: Path
) -> None:
    """One layer fails; when its source is right again, the same command fetches that layer alone."""
    variant, image = describe(tmp_path, hashes), f"{registry()}/half/podkiln:v1"
    hub.fault(Fault("status", "b.safetensors", "hub", status=404, times=-1))
    with pytest.raises(SourceError, match=r"b\.safetensors"):
        deliver(variant, runtime, image, jobs=1)
    known = remembered(tmp_path)
    assert known
    hub.script.faults.clear()
    again = deliver(variant, runtime, image).as_json()["weights"]
    assert again["existing_bytes"] == sum(layer["size"] for layer in known.values())
    assert_verified(image, variant)


def test_a_second_bake_on_this_disk_fetches_nothing(hub: Hub, hashes: dict[str, str], tmp_path: Path) -> None:
    """The new image takes the weight layers over from the one whose place it takes."""
    variant, dist = describe(tmp_path, hashes), tmp_path / "dist"
    first = bake(variant, dist, hub)
    served = hub.served()
    plan = podkiln("plan", "--variant", str(variant), "--json", cwd=tmp_path)
    assert json.loads(plan.stdout)["fetch_bytes"] == 0
    second = bake(variant, dist, hub)
    assert second.digest == first.digest
    assert hub.served() == served
    shutil.rmtree(dist)
    plan = podkiln("plan", "--variant", str(variant), "--json", cwd=tmp_path)
    assert json.loads(plan.stdout)["fetch_bytes"] == WEIGHTS


def remembered(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the lock knows of layers, by name."""
    memory = folder / "bakes.locks" / "layers.json"
    layers = json.loads(memory.read_text())["layers"].values() if memory.exists() else ()
    return {layer["name"]: layer for layer in layers}


def files(folder: Path) -> set[str]:
    """Return all that lies below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
