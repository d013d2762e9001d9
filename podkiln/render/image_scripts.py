"""What of scripts/ an image or its build has, copied as it is; scripts/host runs here alone."""

from __future__ import annotations

from functools import cache
from typing import Final

from podkiln.config.document import ROOT
from podkiln.render.context_file import File

SCRIPTS = ROOT / "scripts"
# The server of a model uses rooms of the worker, and the worker uses `comfy`.
_WITH_COMFYUI: Final = ("comfy", "overlay", "pod", "worker")
_WITH_SERVER: Final = ("comfy", "pod", "server", "worker")
_KINDS: Final = (".py", ".html")  # the server has a page


@cache
def files(*, comfyui: bool) -> dict[str, File]:
    """Return what runs in the image and in its build, by path; without ComfyUI, what a model's server has.

    Where ComfyUI is, people get a page of it, with logins, and commands.
    """
    found = {"podkiln/__main__.py": SCRIPTS / "__main__.py"}
    for package in _WITH_COMFYUI if comfyui else _WITH_SERVER:
        modules = (path for path in sorted((SCRIPTS / package).rglob("*")) if path.suffix in _KINDS)
        found |= {f"podkiln/{path.relative_to(SCRIPTS)}": path for path in modules}
    configs = (path for path in sorted((SCRIPTS / "access").rglob("*")) if path.is_file())
    configs = (path for path in configs if comfyui or path.name == "sshd_config")
    found |= {f"podkiln/{path.relative_to(SCRIPTS)}": path for path in configs if path.suffix != ".pyc"}
    if comfyui:
        found |= {f"bin/{path.name}": path for path in sorted((SCRIPTS / "bin").iterdir())}
    found |= {f"build/{path.name}": path for path in sorted((SCRIPTS / "build").iterdir()) if path.is_file()}
    found["build/apply_patches.py"] = SCRIPTS / "pod/source_trees/patches.py"  # a pod applies them too
    return {
        target: File(
            path.read_bytes(),
            executable=path.suffix == ".sh" or target.startswith("bin/"),
            copied=True,
        )
        for target, path in found.items()
    }
