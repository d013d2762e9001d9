"""Packages for custom nodes: where they lie on the volume, and how Python finds them after the image's own.

`<volume>/.podkiln/python/<image>/` is one image's, named by what is installed in it. A complete set lies in a
folder named after its content; `current` names the one in use. `overlay/sitecustomize.py` puts it at the end
of sys.path, so that it can add packages and never replaces one. Another image begins with none.
"""

from __future__ import annotations

import os

from pod.util import untrusted_files
from pod.volume import node_requirements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VENV = "/opt/venv"
CONSTRAINTS = "constraints.txt"  # in the run folder
CURRENT = "current"
_LONGEST = 4096  # bytes of CURRENT
_TOOLS = frozenset({"pip", "setuptools", "wheel"})  # a package that is built may want its own


def site(venv: str) -> str:
    """Return the site-packages of an environment, whatever its Python."""
    try:
        pythons = sorted(name for name in os.listdir(f"{venv}/lib") if name.startswith("python3"))  # noqa: PTH208
    except OSError:
        pythons = []
    return f"{venv}/lib/{pythons[0] if pythons else 'python3'}/site-packages"


def base(root: str, site_packages: str) -> str:
    """Return where packages for this image lie on a volume."""
    import hashlib  # noqa: PLC0415 - only the process that looks at the volume needs it

    key = hashlib.sha256("\n".join(_pins(site_packages)).encode()).hexdigest()[:16]
    return f"{root.rstrip('/')}/.podkiln/python/{key}"


def active(place: str) -> str | None:
    """Return the folder in use; None when nothing has been installed."""
    try:
        name = untrusted_files.read_plain(f"{place}/{CURRENT}", _LONGEST).decode().strip()
        folder = f"{place}/{name}"
        untrusted_files.check_folders(f"{folder}/")
    except (OSError, ValueError):
        return None
    return folder if os.path.isdir(folder) else None  # noqa: PTH112


def environment(environ: Mapping[str, str], root: str, place: str) -> dict[str, str]:
    """Return the variables with which Python sees the packages. `root`: /opt/podkiln."""
    return {"PODKILN_OVERLAY": place, "PYTHONPATH": python_path(environ, root)}


def python_path(environ: Mapping[str, str], root: str) -> str:
    """Return the PYTHONPATH on which overlay/sitecustomize.py comes first."""
    paths = [f"{root}/overlay", *filter(None, environ.get("PYTHONPATH", "").split(":"))]
    return ":".join(dict.fromkeys(paths))


def constraints(environ: Mapping[str, str], run: str) -> dict[str, str]:
    """Return the variables that hold pip and uv to the image's versions; a user's own constraints win.

    So nothing that is installed from ComfyUI, by its Manager for example, takes torch or numpy away from it.
    """
    given = {"PIP_CONSTRAINT": environ.get("PIP_CONSTRAINT"), "UV_CONSTRAINT": environ.get("UV_CONSTRAINT")}
    return {name: f"{run}/{CONSTRAINTS}" for name, own in given.items() if not own}


def constraints_text(site_packages: str) -> str:
    """Return the image's packages as a constraints file of pip's."""
    return "".join(f"{pin}\n" for pin in _pins(site_packages))


def _pins(site_packages: str) -> list[str]:
    found = node_requirements.installed(site_packages)
    return sorted(f"{name}=={version}" for name, version in found.items() if name not in _TOOLS)
