"""Images and containers that the tests of this folder share: built once, started once."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pickle
import sys
from typing import TYPE_CHECKING

import debian_mirror
import engines
import pytest
import registries
from containers import Container, docker, gateway
from images import REQUIREMENTS, SHIPPED, SYSTEM_CA, TINY, Built, Image, build, podkiln
from servers import package_index
from servers.hub import Hub

from podkiln.lock import locations
from podkiln.pipeline.planning import bootstrapped_base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from podkiln.build.base_image import BaseLayout

UV_LOCK = locations.LOCKS / "comfyui-0.33.0-cuda-13.0" / "uv.txt"
CANARY = "canary-7f1d0b9c-must-not-be-in-an-image"


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """A Docker Engine's version. None is a failure, not a reason to skip."""
    done = docker("version", "--format", "{{.Server.Version}}", check=False)
    if done.returncode:
        pytest.fail(
            f"No Docker Engine answers; scripts/host/ensure_engine.sh sets one up. {done.stderr.strip()}"
        )
    return done.stdout.strip()


@pytest.fixture(scope="session", autouse=True)
def debian_packages(
    request: pytest.FixtureRequest, docker_engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every build of these tests takes the locked Debian packages, so these have to be served."""
    # Workers share a checkout, and its locks: the second one finds what the first has locked.
    with (tmp_path_factory.getbasetemp().parent / "debian-packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = debian_mirror.require_packages()
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture
    with capture.global_and_fixture_disabled():  # a worker has no other way to say something
        sys.stderr.writelines(f"{line}\n" for line in told)


@pytest.fixture(scope="session")
def bootstrap_base(docker_engine: str) -> BaseLayout:
    """The base image of all tests, made from the locked Debian packages; once on a machine."""
    return bootstrapped_base()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A function that starts a fresh local registry and returns its host:port."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def start() -> str:
            directory = tmp_path_factory.mktemp(f"registry-{next(numbers)}")
            return stack.enter_context(registries.serve(directory))

        yield start


@pytest.fixture(scope="session")
def overlay2_engine() -> Iterator[str]:
    """DOCKER_HOST of an engine with overlay2 image storage; it has no network of its own."""
    with engines.serve(containerd=False) as host:
        yield host


@pytest.fixture(scope="session")
def containerd_engine() -> Iterator[str]:
    """DOCKER_HOST of an engine with containerd image storage; it has no network of its own."""
    with engines.serve(containerd=True) as host:
        yield host


@pytest.fixture(scope="session")
def canary() -> str:
    """What must be in no image: it stands in the CA bundle, in tokens, and in the login of an index."""
    return CANARY


@pytest.fixture(scope="session")
def private_ca(docker_engine: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A CA that nobody else knows, and a server's certificate from it."""
    return package_index.certificates(tmp_path_factory.mktemp("ca"), gateway())


@pytest.fixture(scope="session")
def ca_bundle(private_ca: tuple[Path, Path]) -> Path:
    """This machine's CA bundle, the private CA, and a canary: builds need it, no image may hold it."""
    path = private_ca[0].parent / "bundle.pem"
    path.write_text(f"# {CANARY}\n{SYSTEM_CA.read_text()}{private_ca[0].read_text()}")
    return path


@pytest.fixture(scope="session")
def private_index(private_ca: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address, login included, of an index that has what the images of these tests need."""
    wheels = tmp_path_factory.mktemp("wheels")
    package_index.download([UV_LOCK, REQUIREMENTS / "libraries.txt", REQUIREMENTS / "jupyter.txt"], wheels)
    with package_index.serve(wheels, gateway(), private_ca[1], f"me:{CANARY}") as url:
        yield url


@pytest.fixture(scope="session")
def built(
    request: pytest.FixtureRequest,
    bootstrap_base: BaseLayout,
    registry: Callable[[], str],
    ca_bundle: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Built]:
    """All shipped variants and a user's own, built, pushed and loaded by one command.

    Where only smoke tests run, just the two that these ask for. Of several workers one builds, and its images
    and their registry stay until the others have ended.
    """
    out = tmp_path_factory.mktemp("build") / "dist"
    smoke = all(item.get_closest_marker("smoke") for item in request.session.items)
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    kept = folder / "built.pickle"
    with (folder / "built.users").open("w") as users:
        with (folder / "built.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            own = not kept.exists()
            if own:
                made = build(
                    [*(("lazy",) if smoke else SHIPPED), str(TINY)],
                    out,
                    *("--no-weights", "--ca-bundle", ca_bundle),
                    *("--load", "--push", "--allow-substituted", "--registry", f"{registry()}/team"),
                    env={"HF_TOKEN": CANARY, "CIVITAI_TOKEN": CANARY},
                )
                kept.write_bytes(pickle.dumps(made))
            else:
                made = pickle.loads(kept.read_bytes())  # noqa: S301 - written above, by another worker
            fcntl.flock(users, fcntl.LOCK_SH)
        yield made
        if own:
            kept.unlink()
            fcntl.flock(users, fcntl.LOCK_EX)
            for image in made.images.values():
                docker("image", "rm", "--force", image.name, check=False)


@pytest.fixture(scope="session", params=SHIPPED)
def shipped(built: Built, request: pytest.FixtureRequest) -> Image:
    """One shipped variant's image: a test that takes it runs for each of the five."""
    return built.images[request.param]


@pytest.fixture(scope="session")
def lazy(built: Built) -> Image:
    """The lazy variant's image, for what does not depend on the variant."""
    return built.images["lazy"]


@pytest.fixture(scope="session")
def tiny(built: Built) -> Image:
    """The user's own variant, which offers models of a few KiB."""
    return built.images["tiny"]


@pytest.fixture(scope="session")
def pods(built: Built) -> Iterator[dict[str, Container]]:
    """A pod of every shipped variant, pulled by digest, on this machine without a GPU; nothing is fetched.

    They are shared: do not change them.
    """
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(
                Container(built.images[name].by_digest, env={"MODELS": "none"}, options=["--pull=always"])
            )
            for name in SHIPPED
        }
        yield running


@pytest.fixture(scope="session", params=SHIPPED)
def pod(pods: dict[str, Container], request: pytest.FixtureRequest) -> Container:
    """One shipped variant's pod, serving: a test that takes it runs for each of the five."""
    container = pods[request.param]
    container.wait_ready()
    return container


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that pods can reach, with what tests/fixtures/variants/tiny.yaml wants to fetch."""
    with Hub(bind="0.0.0.0", host=gateway()) as serving:
        for seed, name in enumerate(("present", "gated", "wrong"), start=1):
            serving.add(f"podkiln-tests/{name}", f"{name}.safetensors", 262144, seed=seed)
        serving.gate("podkiln-tests/gated", CANARY)
        yield serving


@pytest.fixture(scope="session")
def foretold(docker_engine: str) -> dict[str, list[str]]:
    """What `./build.py flags` says of a machine without a GPU and with this machine's RAM, by variant.

    The images of these tests have no custom nodes. None is left out of a pod, as where all are asked for.
    """
    ram = int(docker("info", "--format", "{{.MemTotal}}").stdout) >> 20
    asked, answers = ("--nodes", "all", "--json"), {}
    for name in SHIPPED:
        done = podkiln("flags", "--variant", name, "--vram-mib", "0", "--ram-mib", str(ram), *asked)
        assert done.returncode == 0, done.stderr
        answers[name] = json.loads(done.stdout)["args"]
    return answers
