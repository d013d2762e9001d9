"""/opt, /start.sh and /usr/local/bin as the image has them, made on a bare machine; what is there stays.

Each piece is made beside its place and moved there whole, /start.sh last: a run that was interrupted left
nothing that the next one would take for done.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_kit.paths import KIT, python

if TYPE_CHECKING:
    from collections.abc import Iterator

COMFYUI = Path("/opt/ComfyUI")
PODKILN = Path("/opt/podkiln")
VENV = Path("/opt/venv")
STUBS = Path("/opt/bench-stubs")
BIN = Path("/usr/local/bin")
START = Path("/start.sh")
# What ComfyUI refuses to start without, and a prompt never uses.
STUBBED = ("comfyui-frontend-package", "comfyui-workflow-templates", "comfyui-embedded-docs")
_MADE_BY_RUNNING = {"__pycache__", ".git"}


def missing(context: Path, comfyui: Path | None, *, asked: bool) -> Iterator[str]:
    """Yield what cannot be laid out, a sentence each.

    Args:
        context: A rendered variant.
        comfyui: A tree of ComfyUI.
        asked: Whether that variant was asked for: what is there already must then be the same.
    """
    if not START.exists() and not (context / "start.sh").is_file():
        yield f"{context} holds no rendered variant; run ./build.py render --variant lazy first."
    elif START.exists() and asked and not _same_context(context):
        yield (
            f"--context {context} is not what {START} and {PODKILN} are, which are there already: "
            "leave it out, or remove those."
        )
    there = (COMFYUI / "main.py").is_file()
    if not there and COMFYUI.exists():
        yield f"{COMFYUI} is there without a main.py: remove it, and give a tree with --comfyui DIR."
    elif not there and not (comfyui and (comfyui / "main.py").is_file()):
        yield "ComfyUI is not here; give a tree of the pinned release with --comfyui DIR."
    elif there and comfyui and (differs := _differs(comfyui, COMFYUI)):
        yield (
            f"--comfyui {comfyui} is not what {COMFYUI} is, which is there already ({differs}): "
            f"leave it out, or remove {COMFYUI}."
        )


def _same_context(context: Path) -> bool:
    try:
        same = filecmp.cmp(context / "start.sh", START, shallow=False)
        return same and _differs(context / "podkiln", PODKILN) is None
    except OSError:
        return False


def _differs(tree: Path, there: Path) -> str | None:
    """Return the first file of a tree that is not the same elsewhere; None where all of them are."""
    for at, folders, names in os.walk(tree):
        folders[:] = sorted({*folders} - _MADE_BY_RUNNING)
        for path in (Path(at) / name for name in sorted(names)):
            other = there / path.relative_to(tree)
            if not other.is_file() or not filecmp.cmp(path, other, shallow=False):
                return str(path.relative_to(tree))
    return None


def lay_out(context: Path, comfyui: Path | None) -> None:
    """Make what is not there already. Raises OSError."""
    if not (COMFYUI / "main.py").exists() and comfyui is not None:
        _copy(comfyui, COMFYUI)
    if not VENV.exists():
        VENV.unlink(missing_ok=True)  # a link to a Python that is gone
        VENV.symlink_to(Path(sys.prefix))
    if not START.exists():
        _copy(context / "podkiln", PODKILN)
        for script in (context / "bin").iterdir():
            _copy(script, BIN / script.name)
        _copy(context / "start.sh", START)
    shutil.copy(KIT / "random_conditioning.py", COMFYUI / "custom_nodes" / "bench_random_conditioning.py")
    requirements = (COMFYUI / "requirements.txt").read_text(encoding="utf-8")
    for name in STUBBED:
        found = re.search(rf"^{name}==(\S+)", requirements, re.MULTILINE)
        if found and not _imports(name.replace("-", "_")):
            _stub(name, found[1])
    paths = [os.environ.get("PYTHONPATH", ""), str(STUBS)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the first card is then nvidia-smi's first
    # Stale or missing bytecode would be measured as ComfyUI's boot.
    trees = [str(COMFYUI), *(entry for entry in os.environ["PYTHONPATH"].split(os.pathsep) if entry)]
    subprocess.run([python(), "-m", "compileall", "-q", "-j", "0", *trees], check=False, capture_output=True)


def _copy(source: Path, place: Path) -> None:
    """Copy a folder, or a program, so that it is in its place whole or not at all."""
    part = place.with_name(f".{place.name}.part")
    if part.is_dir():
        shutil.rmtree(part)
    if source.is_dir():
        shutil.copytree(source, part)
        if place.is_dir():  # of a layout that ended before /start.sh
            shutil.rmtree(place)
    else:
        shutil.copy(source, part)
        part.chmod(0o755)
    part.replace(place)


def _imports(module: str) -> bool:
    ask = [python(), "-c", f"import {module}"]
    return subprocess.run(ask, capture_output=True, check=False).returncode == 0


def _stub(name: str, version: str) -> None:
    """Make a package that only says that it is there."""
    module = name.replace("-", "_")
    for folder in ("static", "templates", "docs"):
        (STUBS / module / folder).mkdir(parents=True, exist_ok=True)
    (STUBS / module / "__init__.py").touch()
    page = "<!doctype html><title>stub</title>"
    (STUBS / module / "static" / "index.html").write_text(page, encoding="utf-8")
    info = STUBS / f"{module}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (info / "METADATA").write_text(metadata, encoding="utf-8")
