"""The full runtime, with the 103 locked wheels: what is imported, how large its layers are, a model served.

Minutes and gigabytes, so it is built once, and what it took is given back at the end.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import Container, docker
from images import BASE, COMFYUI, SYSTEM_CA, Image, podkiln

from podkiln.config import catalog, comfyui_flags, variant
from podkiln.lock import reader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.build.base_image import BaseLayout

pytestmark = [pytest.mark.engine, pytest.mark.full]
MOST_LAYER_BYTES = 1_500_000_000
TESTS = Path(__file__).resolve().parents[1]
INSTALLED = TESTS / "installed.py"
NEEDED_BYTES = 30_000_000_000
SHARED = 7
# Measured on the wheels with all their files: 45 of 2401 modules, for want of packages that are not locked.
FAILS = (
    "numpy._core.cversions",
    "numpy.random._examples.",
    "scipy._external.array_api_",
    "scipy.special._mptestutils",
    "scipy.special._precompute.",
    "scipy.special._testutils",
    "sympy.galgebra",
    "sympy.parsing.autolev._antlr.",
    "sympy.parsing.latex._antlr.",
    "sympy.plotting.pygletplot",
    "triton._internal_testing",
    "triton.profiler.viewer",
)
# The driver's; those of other machines' networks; and torch's own and the CUDA runtime, which torch has
# loaded before.
NOT_FOUND = {
    "libcuda.so.1",
    "libcudart.so.13",
    "libmlx5.so.1",
    "librdmacm.so.1",
    "libibverbs.so.1",
    "libcufile.so.0",
    "libmpi.so.40",
    "libpmix.so.2",
    "liboshmem.so.40",
    "libfabric.so.1",
    "libucs.so.0",
    "libucp.so.0",
    "libc10.so",
    "libtorch.so",
    "libtorch_cpu.so",
    "libc10_cuda.so",
    "libtorch_cuda.so",
    "libtorch_python.so",
}
WHEELS = re.compile(
    r"Size:\s+([0-9.]+GB|[1-9][0-9]{2}[0-9.]*MB)\nDescription:\s+mount / from exec .*/python-layer\.sh"
)
VERSIONS = """
import importlib.metadata, json, pathlib
import torch, torchaudio, torchvision, transformers, comfy_kitchen, comfy_aimdo.control, av, safetensors.torch
print(json.dumps({
    "torch": torch.__version__, "cuda": torch.version.cuda,
    "architectures": torch._C._cuda_getArchFlags().split(),
    "comfy_kitchen": pathlib.Path(comfy_kitchen.__file__).parts[:5],
    "installed": {d.name: d.version for d in importlib.metadata.distributions()},
    "sum": float((torch.ones(4) @ torch.ones(4)).item()),
}))
"""


@pytest.fixture(scope="module")
def built(bootstrap_base: BaseLayout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Image]]:
    """Two variants with the real wheels, loaded, without nodes; base and ComfyUI are substituted."""
    out = tmp_path_factory.mktemp("full") / "dist"
    free = shutil.disk_usage(out.parent).free
    assert free > NEEDED_BYTES, f"{free / 1e9:.0f} GB free; the full runtime needs {NEEDED_BYTES / 1e9:.0f}"
    done = podkiln(
        *(
            "--variant",
            "consumer",
            "--variant",
            "server",
            *BASE,
            "--source",
            f"comfyui={COMFYUI}",
            "--ca-bundle",
            SYSTEM_CA,
        ),
        *("--source", "nodes=none"),
        *("--out", out, "--tag", "{variant}-full-test", "--load", "--no-keep"),
    )
    assert done.returncode == 0, done.stderr[-6000:]
    images = {}
    for name in ("consumer", "server"):
        report = json.loads((out / name / "report.json").read_text())
        images[name] = Image(name, report["image"], out / name / "image", report)
    yield images
    docker("image", "rm", "--force", *(image.name for image in images.values()), check=False)
    shutil.rmtree(out)
    give_back_build_cache()


@pytest.fixture(scope="module")
def full(built: dict[str, Image]) -> Image:
    """The consumer image: ComfyUI."""
    return built["consumer"]


@pytest.fixture(scope="module")
def server(built: dict[str, Image]) -> Image:
    """The image of the model's server."""
    return built["server"]


@pytest.fixture(scope="module")
def pod(full: Image) -> Iterator[Container]:
    """A pod of it, on this machine without a GPU."""
    with Container(full.name, env={"MODELS": "none"}) as container:
        container.wait_ready(120)
        yield container


def test_no_layer_is_above_the_limit(full: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """Print the table that the README quotes."""
    lines = [f"\n{'MB':>9}  layer"]
    for layer in full.report["layers"]:
        what = re.sub(r"^RUN /bin/sh -c |\s*# buildkit$", "", layer["what"])
        lines.append(f"{layer['size'] / 1e6:9.1f}  {what[:70]}")
    total = sum(layer["size"] for layer in full.report["layers"])
    lines.append(f"{total / 1e6:9.1f}  all; {full.report['seconds']}\n")
    show(capsys, lines)
    assert max(layer["size"] for layer in full.report["layers"]) <= MOST_LAYER_BYTES


def test_every_locked_package_is_installed_and_imports(
    pod: Container, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(pod.exec("/opt/venv/bin/python", "-c", VERSIONS).stdout.splitlines()[-1])
    locked = locked_versions()
    installed = {normal(name): version for name, version in told["installed"].items()}
    assert {name: installed.get(name) for name in locked} == locked
    assert told["torch"].startswith(locked["torch"])
    assert told["cuda"] == "13.0"
    assert tuple(told["architectures"]) == comfyui_flags.architectures(locked["torch"], told["cuda"])
    assert told["sum"] == 4.0
    shown = ("torch", "torchvision", "torchaudio", "transformers", "comfy-kitchen", "comfy-aimdo")
    show(capsys, ["\n" + ", ".join(f"{name} {locked[name]}" for name in shown)])


def test_what_the_strip_list_takes_is_missed_by_nothing(pod: Container) -> None:
    """As with all files there: FAILS and NOT_FOUND are what the wheels of the lock say by themselves."""
    done = pod.exec("/opt/venv/bin/python", "-I", "-c", INSTALLED.read_text())
    told = json.loads(done.stdout)
    failed = {name: error for name, error in told["modules"].items() if error}
    assert len(told["modules"]) > 2000
    assert {name: error for name, error in failed.items() if not name.startswith(FAILS)} == {}
    assert set(told["missing"]) <= NOT_FOUND
    assert pod.exec("sh", "-c", "ls /opt/venv/lib/*/site-packages/numpy/tests", check=False).returncode != 0


def test_no_bytecode_depends_on_when_it_was_made(full: Image) -> None:
    """PEP 552: the word behind the magic number is 0 where the rest is the time of the source."""
    code = (
        "import pathlib\n"
        "found = [p for top in ('/opt', '/usr/lib/python3') for p in pathlib.Path(top).rglob('*.pyc')]\n"
        "print(len(found), [str(p) for p in found if p.read_bytes()[4:8] != bytes([1, 0, 0, 0])])"
    )
    told = docker("run", "--rm", "--entrypoint=python3", full.name, "-ISBc", code).stdout
    count, _, wrong = told.strip().partition(" ")
    assert int(count) > 10_000
    assert wrong == "[]"


def test_no_package_misses_another(pod: Container) -> None:
    done = pod.exec("/opt/venv/bin/python", "-m", "pip", "--disable-pip-version-check", "check", check=False)
    assert done.returncode == 0, done.stdout


def test_its_bytecode_is_not_stale(pod: Container) -> None:
    """The 25 s: with the real packages, as ComfyUI imports them."""
    said = pod.exec("/opt/venv/bin/python", "-v", "-c", "import torch, transformers, comfy_kitchen").stderr
    sources = [line for line in said.splitlines() if line.startswith("# code object from") and ".py'" in line]
    assert "bytecode is stale" not in said
    assert sources == []


def test_the_model_server_stands_on_the_same_layers(full: Image, server: Image) -> None:
    """Base, system packages, environment, CUDA and torch in three, libraries; what serves stands above."""
    comfyui, own = ([layer["digest"] for layer in image.report["layers"]] for image in (full, server))
    assert own[:SHARED] == comfyui[:SHARED]
    assert own[SHARED] not in comfyui


def test_tiny_models_are_served_by_what_is_in_the_image(server: Image) -> None:
    """With the real diffusers; nothing is fetched."""
    done = docker(
        *("run", "--rm", "--network=none", f"--volume={TESTS}:/tests:ro", "--env=PYTHONPATH=/opt/podkiln"),
        *(
            "--entrypoint=/opt/venv/bin/python",
            server.name,
            "-B",
            "/tests/tiny_models/check.py",
            "/tmp/models",
        ),
        *("media", "sdxl"),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "2 checks, 0 failed"


def give_back_build_cache() -> None:
    """Remove the layers of the wheels from the build cache, and what stands on them."""
    records: dict[str, tuple[list[str], str]] = {}
    for block in docker("buildx", "du", "--verbose").stdout.split("\n\n"):
        head, _, rest = block.partition("Created at:")
        name, *parents = re.findall(r"\b[a-z0-9]{25}\b", head) or [""]
        records[name] = (parents, rest)
    doomed = [name for name, (_, block) in records.items() if WHEELS.search(block)]
    for name in doomed:
        doomed += [each for each, (parents, _) in records.items() if name in parents and each not in doomed]
    if doomed:  # BuildKit goes on until none is left that nothing stands on
        docker("buildx", "prune", "--force", "--filter", f'id="^({"|".join(doomed)})$"')


def show(capsys: pytest.CaptureFixture[str], lines: list[str]) -> None:
    """Print to whoever runs the tests: these are figures to read."""
    with capsys.disabled():
        sys.stdout.write("\n".join(lines) + "\n")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_versions() -> dict[str, str]:
    """Return what the lock names for ComfyUI, by normalised name; JupyterLab is locked apart."""
    described = variant.load("consumer")
    texts = reader.read(described, catalog.offered(described, catalog.load())).requirements()
    own = "\n".join(text for name, text in texts.items() if name != "jupyter.txt")
    rows = re.findall(r"^([\w.-]+)==([^\s;\\]+)", own, re.MULTILINE)
    assert len(rows) == 103
    return {normal(name): version for name, version in rows}
