"""The machine that bench/gpu.py measures: what it lacks, /opt as the image has it, and what it is."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

KIT = Path(__file__).resolve().parent
DOOR, BEHIND = 8188, 18188  # as start.sh has them
NGINX = Path("/usr/sbin/nginx")
# What ComfyUI refuses to start without, and a prompt never uses.
STUBS = ("comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs")
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


def missing(options: argparse.Namespace) -> Iterator[str]:
    """Yield what the run lacks, a sentence each, before anything is started."""
    if not options.cpu and shutil.which("nvidia-smi") is None:
        yield "nvidia-smi is not here, so there is no NVIDIA GPU; --cpu rehearses without one."
    if os.geteuid() != 0:
        yield "it lays out /opt and /start.sh as the image does, so it must run as root."
    if not Path("/start.sh").exists() and not (options.context / "start.sh").is_file():
        yield f"{options.context} holds no rendered variant; run ./build.py render --variant lazy first."
    if not Path("/opt/ComfyUI/main.py").exists() and not (
        options.comfyui and (options.comfyui / "main.py").is_file()
    ):
        yield "ComfyUI is not here; give a tree of the pinned release with --comfyui DIR."
    script = (
        "import importlib.util, sys\n"
        "print(' '.join(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))"
    )
    absent = subprocess.run([python(), "-c", script, *NEEDED], capture_output=True, text=True, check=False)
    if absent.returncode or absent.stdout.strip():
        names = absent.stdout.strip() or absent.stderr.strip()
        yield f"{python()} lacks the packages {names}; give them by PYTHONPATH."
    elif not options.cpu and shutil.which("nvidia-smi") and not cuda_works():
        yield f"{python()}'s torch finds no CUDA device; --cpu rehearses without one."
    alone = subprocess.run([python(), "-I", "-c", "import aiohttp"], capture_output=True, check=False)
    if not absent.returncode and alone.returncode:
        yield f"{python()} has aiohttp by PYTHONPATH alone, which podkiln-comfy does not read."
    free = shutil.disk_usage(_existing(options.workspace)).free
    if free < options.disk_gb * 10**9:
        yield f"{options.workspace} has {free / 1e9:.0f} GB free, and the models take {options.disk_gb} GB."


def cuda_works() -> bool:
    """Whether torch finds a CUDA device."""
    ask = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([python(), "-c", ask], capture_output=True, check=False).returncode == 0


def _existing(path: Path) -> Path:
    """Return a path, or the nearest folder above it that is there."""
    return path if path.exists() else _existing(path.parent)


def port() -> int:
    """Return where ComfyUI answers: at the door, or behind it where no nginx is there to be one."""
    return DOOR if NGINX.exists() else BEHIND


def in_image(program: Path, options: argparse.Namespace) -> int:
    """Run a program of this checkout in an image, with all cards; returns its exit code."""
    root = KIT.parents[1]
    if shutil.which("docker") is None:
        print(
            f"{program.relative_to(root)}: docker is not here, and --image needs it: install Docker and the "
            "NVIDIA Container Toolkit, or leave --image out to run on this machine itself.",
            file=sys.stderr,
        )
        return 1
    out, workspace = options.out.absolute(), options.workspace.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    mounts = dict.fromkeys((root, out.parent, workspace))
    docker = ["docker", "run", "--rm", "--init", "--entrypoint", "/opt/venv/bin/python"]
    docker += [word for mount in mounts for word in ("--volume", f"{mount}:{mount}")]
    cards = [] if options.cpu else ["--gpus", "all"]
    # No bytecode in the checkout, which is root's there.
    command = [
        *docker,
        *cards,
        "--shm-size",
        "2g",
        "--workdir",
        str(root),
        "--env",
        "PYTHONDONTWRITEBYTECODE=1",
    ]
    given = {"out": out, "workspace": workspace}
    try:
        return subprocess.run(
            [*command, options.image, str(program), *_words(vars(options) | given)], check=False
        ).returncode
    finally:
        if os.getuid() != 0:
            tops = map(str, (out, out.parent / "gpu-logs", workspace))
            owner = (str(os.getuid()), str(os.getgid()))
            give_back = str(KIT / "give_back.py")
            subprocess.run([*docker, options.image, give_back, *owner, *tops], check=False)


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options for the program in the image, as words of its command line."""
    for name in ("budget", "out", "workspace", "only", "check", "cpu"):
        value = options[name]
        if isinstance(value, list):
            yield from (f"--{name}", *value)
        elif value:
            yield f"--{name}" if value is True else f"--{name}={value}"


def python() -> str:
    """Return the Python that runs ComfyUI: the image's, or else this one."""
    return "/opt/venv/bin/python" if Path("/opt/venv/bin/python").exists() else sys.executable


def options_of(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what to run on."""
    here = KIT.parents[1]
    parser.add_argument("--check", action="store_true", help="say what is missing, and run nothing")
    parser.add_argument("--cpu", action="store_true", help="rehearse without a GPU, with small models")
    parser.add_argument("--image", help="run in this image, by docker, in the place of this machine")
    parser.add_argument(
        "--context", type=Path, default=here / "dist" / "lazy", help="a rendered variant, without an image"
    )
    parser.add_argument("--comfyui", type=Path, help="a ComfyUI tree, where /opt/ComfyUI is not there yet")
    parser.add_argument("--workspace", type=Path, default=Path("/workspace"))


def lay_out(context: Path, comfyui: Path | None) -> None:
    """Make /opt, /start.sh and /usr/local/bin as the image has them, where they are not there already."""
    if not Path("/opt/ComfyUI/main.py").exists() and comfyui is not None:
        shutil.copytree(comfyui, "/opt/ComfyUI")
    if not Path("/opt/venv").exists():
        Path("/opt/venv").symlink_to(Path(sys.prefix))
    if not Path("/start.sh").exists():
        shutil.copytree(context / "podkiln", "/opt/podkiln")
        for script in (context / "bin").iterdir():
            shutil.copy(script, Path("/usr/local/bin") / script.name)
            (Path("/usr/local/bin") / script.name).chmod(0o755)
        shutil.copy(context / "start.sh", "/start.sh")
        Path("/start.sh").chmod(0o755)
    shutil.copy(KIT / "random_conditioning.py", "/opt/ComfyUI/custom_nodes/bench_random_conditioning.py")
    stubs = Path("/opt/bench-stubs")
    requirements = Path("/opt/ComfyUI/requirements.txt").read_text(encoding="utf-8")
    for name in STUBS:
        module = name.replace("-", "_")
        found = re.search(rf"^{name}==(\S+)", requirements, re.MULTILINE)
        if (
            not found
            or subprocess.run(
                [python(), "-c", f"import {module}"], capture_output=True, check=False
            ).returncode
            == 0
        ):
            continue
        for folder in ("static", "templates", "docs"):
            (stubs / module / folder).mkdir(parents=True, exist_ok=True)
        (stubs / module / "__init__.py").touch()
        (stubs / module / "static" / "index.html").write_text(
            "<!doctype html><title>stub</title>", encoding="utf-8"
        )
        info = stubs / f"{module}-{found[1]}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {found[1]}\n", encoding="utf-8"
        )
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH", ""), str(stubs)]))
    # Stale or missing bytecode would be measured as ComfyUI's boot.
    trees = ["/opt/ComfyUI", *(entry for entry in os.environ["PYTHONPATH"].split(os.pathsep) if entry)]
    subprocess.run([python(), "-m", "compileall", "-q", "-j", "0", *trees], check=False, capture_output=True)


def describe(*, cpu: bool = False) -> dict[str, str]:
    """Return what the figures hold for: card, driver, versions, date."""
    card = {"gpu": "name", "vram_mib": "memory.total", "driver": "driver_version"}
    card["compute_capability"] = "compute_cap"
    script = (
        "import torch, importlib.metadata as m\n"
        "print(torch.__version__, torch.version.cuda, m.version('comfy-aimdo'))"
    )
    versions = subprocess.run(
        [python(), "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    release = Path("/opt/ComfyUI/comfyui_version.py").read_text(encoding="utf-8")
    return {
        **({"gpu": "none, on the CPU"} if cpu else {key: smi(field) for key, field in card.items()}),
        "cpus": str(os.cpu_count()),
        "ram_mib": str(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20),
        "python": platform.python_version(),
        "torch": versions[0],
        "cuda": versions[1],
        "comfy_aimdo": versions[2],
        "comfyui": re.findall(r'__version__ = "([^"]+)"', release)[0],
        **image(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def image() -> dict[str, str]:
    """Return which image this is, or which was laid out: its variant, and the digest of its lock."""
    try:
        manifest = json.loads(Path("/opt/podkiln/manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {"variant": str(manifest["variant"]), "lock": str(manifest["lock"])}


def smi(query: str) -> str:
    """Return one value of the first card. Raises OSError or CalledProcessError where it does not answer."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
