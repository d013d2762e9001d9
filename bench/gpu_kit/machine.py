"""The machine that bench/gpu.py measures: what it lacks, what it is, and an image in its place."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_kit import layout, models, smi
from gpu_kit.paths import KIT, python

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = KIT.parents[1]
CONTEXT = ROOT / "dist" / "lazy"
SYSTEM_PYTHON = "/usr/bin/python3"  # what start.sh runs podkiln's own code with
OLDEST = (3, 11)
NEEDED = (
    "torch",
    "comfy_kitchen",
    "comfy_aimdo",
    "aiohttp",
    "av",
    "safetensors",
    "transformers",
    "spandrel",
    "torchsde",
)
_BESIDE = 10**9  # bytes for logs, pictures and ComfyUI's own files
_STOP_SECONDS = 60  # for what runs in a container to end what it has started


def missing(options: argparse.Namespace) -> Iterator[str]:
    """Yield what the run lacks, a sentence each, before anything is started.

    Besides the options of `options_of` it reads `workflows`, those whose models are needed.
    """
    if not options.cpu:
        yield from _card()
    if os.geteuid() != 0:
        yield "it lays out /opt and /start.sh as the image does, so it must run as root."
    yield from layout.missing(options.context or CONTEXT, options.comfyui, asked=options.context is not None)
    yield from _packages(options)
    if old := _too_old():
        yield f"{SYSTEM_PYTHON} is {old}, and start.sh needs Python {OLDEST[0]}.{OLDEST[1]} or newer there."
    try:
        needed = models.lacking(options.workflows, options.workspace) + _BESIDE
        free = shutil.disk_usage(_existing(options.workspace)).free
    except OSError as error:
        yield f"--workspace {options.workspace} cannot be looked at ({error.strerror})."
    else:
        if free < needed:
            yield (
                f"{options.workspace} has {free / 1e9:.0f} GB free, and what it lacks of the models takes "
                f"{needed / 1e9:.0f} GB."
            )
    for folder in (options.workspace, options.out.parent):
        if (at := _existing(folder)) and not (at.is_dir() and os.access(at, os.W_OK)):
            yield f"{folder} cannot be written: {at} is no folder that this user may write to."


def _card() -> Iterator[str]:
    if shutil.which("nvidia-smi") is None:
        yield "nvidia-smi is not here, so there is no NVIDIA GPU; --cpu rehearses without one."
        return
    try:
        smi.mib("memory.total")
        smi.card()
    except smi.MachineError as reason:
        yield f"{reason.args[0]} --cpu rehearses without a card."


def _packages(options: argparse.Namespace) -> Iterator[str]:
    script = (
        "import importlib.util, sys\n"
        "print(' '.join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))"
    )
    absent = subprocess.run([python(), "-c", script, *NEEDED], capture_output=True, text=True, check=False)
    if absent.returncode or absent.stdout.strip():
        names = absent.stdout.strip() or (absent.stderr.strip().splitlines() or ["it needs"])[-1]
        yield f"{python()} lacks the packages {names}; give them by PYTHONPATH."
        return
    if not options.cpu and shutil.which("nvidia-smi") and not cuda_works():
        yield f"{python()}'s torch finds no CUDA device; --cpu rehearses without one."
    alone = subprocess.run([python(), "-I", "-c", "import aiohttp"], capture_output=True, check=False)
    if alone.returncode:
        yield f"{python()} has aiohttp by PYTHONPATH alone, which podkiln-comfy does not read."


def _too_old() -> str | None:
    """Return which Python start.sh would run with where it is too old, or what is wrong with it."""
    script = (
        f"import sys; print('Python %d.%d' % sys.version_info[:2]); sys.exit(sys.version_info < {OLDEST})"
    )
    try:
        done = subprocess.run([SYSTEM_PYTHON, "-c", script], capture_output=True, text=True, check=False)
    except OSError as error:
        return f"not to be started ({error.strerror})"
    return (done.stdout.strip() or "broken") if done.returncode else None


def cuda_works() -> bool:
    """Whether torch finds a CUDA device."""
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([python(), "-c", ask], capture_output=True, check=False).returncode == 0


def _existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    path = path.absolute()
    return path if os.path.lexists(path) else _existing(path.parent)


def in_image(program: Path, options: argparse.Namespace) -> int:
    """Run a program of this checkout in an image, with all cards; returns its exit code."""
    name = program.relative_to(ROOT)
    if options.context or options.comfyui:
        print(
            f"{name}: an image has its own ComfyUI and variant: leave --context and --comfyui out.",
            file=sys.stderr,
        )
        return 2
    if shutil.which("docker") is None:
        print(
            f"{name}: docker is not here, and --image needs it: install Docker and the "
            "NVIDIA Container Toolkit, or leave --image out to run on this machine itself.",
            file=sys.stderr,
        )
        return 1
    if subprocess.run(
        ["docker", "image", "inspect", options.image], capture_output=True, check=False
    ).returncode:
        print(
            f"{name}: the engine here has no image {options.image}: pull it, or build it with "
            "`./build.py --variant lazy --load`, and start Docker where it does not run.",
            file=sys.stderr,
        )
        return 1
    out, workspace = options.out.absolute(), options.workspace.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    mounts = dict.fromkeys((ROOT, out.parent, workspace))
    docker = ["docker", "run", "--rm", "--init", "--entrypoint", "/opt/venv/bin/python"]
    docker += [word for mount in mounts for word in ("--volume", f"{mount}:{mount}")]
    cards = [] if options.cpu else ["--gpus", "all"]
    # No bytecode in the checkout, which is root's there.
    container = f"podkiln-gpu-{os.getpid()}"
    settings = ["--shm-size", "2g", "--workdir", str(ROOT), "--env", "PYTHONDONTWRITEBYTECODE=1"]
    command = [*docker, *cards, *settings, "--name", container, options.image, str(program)]
    given = {"out": out, "workspace": workspace}
    try:
        return _run([*command, *_words(vars(options) | given)], container)
    finally:
        if os.getuid() != 0:
            tops = map(str, (out, out.parent / "gpu-logs", workspace))
            owner = (str(os.getuid()), str(os.getgid()))
            give_back = str(KIT / "give_back.py")
            subprocess.run([*docker, options.image, give_back, *owner, *tops], check=False)


def _run(command: list[str], container: str) -> int:
    """Run a container; where this is ended, so is what runs there, which docker alone would leave behind."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()  # docker passes it on
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            subprocess.run(["docker", "kill", container], capture_output=True, check=False)
        raise


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options for the program in the image, as words of its command line."""
    for name in ("budget", "out", "workspace", "only", "check", "cpu"):
        value = options[name]
        if isinstance(value, list):
            yield from (f"--{name}", *value)
        elif value:
            yield f"--{name}" if value is True else f"--{name}={value}"


def options_of(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to run on."""
    parser.add_argument("--check", action="store_true", help="say what is missing, and run nothing")
    parser.add_argument("--cpu", action="store_true", help="rehearse without a GPU, with small models")
    parser.add_argument("--image", help="run in this image, by docker, in the place of this machine")
    parser.add_argument(
        "--context", type=Path, help="a rendered variant, without an image; by default dist/lazy"
    )
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI tree, where /opt/ComfyUI is not there yet")
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))


def seconds(text: str) -> float:
    """Read a number of seconds off the command line. Raises argparse.ArgumentTypeError."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return number


def describe(*, cpu: bool = False) -> dict[str, str]:
    """Return what the figures hold for: card, driver, versions, date. Raises MachineError."""
    script = (
        "import torch, importlib.metadata as m\n"
        "print(torch.__version__, torch.version.cuda, m.version('comfy-aimdo'))"
    )
    done = subprocess.run([python(), "-c", script], capture_output=True, text=True, check=False)
    versions = done.stdout.split()
    if done.returncode or len(versions) != 3:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise smi.MachineError(f"{python()} does not tell the versions of torch and comfy-aimdo: {last}")
    release = (layout.COMFYUI / "comfyui_version.py").read_text(encoding="utf-8")
    return {
        **({"gpu": "none, on the CPU"} if cpu else _describe_card()),
        "cpus": str(os.cpu_count()),
        "ram_mib": str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20),
        "python": platform.python_version(),
        "torch": versions[0],
        "cuda": versions[1],
        "comfy_aimdo": versions[2],
        "comfyui": (re.findall(r'__version__ = "([^"]+)"', release) or ["unknown"])[0],
        **image(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _describe_card() -> dict[str, str]:
    smi.mib("memory.total")
    told = smi.card()
    names = {"gpu": "name", "vram_mib": "memory.total", "driver": "driver_version"}
    return {key: told[field] for key, field in {**names, "compute_capability": "compute_cap"}.items()}


def image() -> dict[str, str]:
    """Return which image this is, or which was laid out: its variant, and the digest of its lock."""
    try:
        manifest = json.loads((layout.PODKILN / "manifest.json").read_text(encoding="utf-8"))
        return {"variant": str(manifest["variant"]), "lock": str(manifest["lock"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
