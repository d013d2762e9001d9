"""What ComfyUI is started with in every pod: refused where it contradicts the image."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from packaging.utils import canonicalize_name

from podkiln.config import comfyui_flags, list_changes, python_requirements, releases
from podkiln.config.fields import requirement_name
from podkiln.errors import DescriptionError

if TYPE_CHECKING:
    from podkiln.config.variant import LoadedVariant

_KEY: Final = ("runtime", "comfyui", "arguments")
TAKEN: Final = {22: "sshd", 8888: "JupyterLab"}
_PORT: Final = "--port={port}"


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for arguments with which no pod of the image could be used.

    The port is the pod's (COMFYUI_PORT, else runtime.port), so it is never written out; without --listen
    ComfyUI cannot be reached from outside the pod; a pod refuses a flag whose Python package is missing.
    """
    comfyui, port = described.spec.runtime.comfyui, described.spec.runtime.port
    if port in TAKEN:
        raise described.error(("runtime", "port"), f"{port} is the port of {TAKEN[port]} in every pod.")
    words = [word.partition("=")[0] for word in comfyui.arguments]
    for number, (word, name) in enumerate(zip(comfyui.arguments, words, strict=True)):
        following = comfyui.arguments[number + 1 : number + 2]
        if name == "--port" and word != _PORT and (word != "--port" or following != ("{port}",)):
            raise described.error(
                (*_KEY, number), f"the port is the key runtime.port, and {_PORT} passes it on."
            )
    for flag, written in (("--listen", "--listen=0.0.0.0"), ("--port", _PORT)):
        if flag not in words:
            raise _lacking(described, flag, written)
    if not releases.flags_path(comfyui.version, described.flags).is_file():
        return  # a version whose flags are not known is refused where they are needed
    # Rules that do not fit the release are said when its flags are needed.
    known, _ = comfyui_flags.check(comfyui.version, described.flags, comfyui_flags.DIRECTORY)
    needed = {flag.name: flag.package or flag.module for flag in known.flags.flags if flag.module}
    asked = _required(described)
    for number, name in enumerate(words):
        package = needed.get(name)
        if package and canonicalize_name(package) not in asked:
            raise described.error(
                (*_KEY, number),
                f"{name} needs the Python package {package}, which is not among the requirements.",
            )


def _lacking(described: LoadedVariant, flag: str, written: str) -> DescriptionError:
    """Return what is wrong where an argument was left out, or taken out, without which no pod can be used."""
    for each in described.lists[list_changes.ARGUMENTS].removed:
        if each.value.partition("=")[0] == flag:
            return each.error(f"{flag} cannot be taken out: without it, ComfyUI cannot be reached in a pod.")
    what = f"a list replaces the parent's, and this one lacks {written}."
    return described.error(_KEY, what, hint="Without it, ComfyUI cannot be reached in a pod.")


def _required(described: LoadedVariant) -> set[str]:
    """Return the packages that the requirements file names, and those added; none where it cannot be read."""
    try:
        lines = python_requirements.lines(described)
    except (DescriptionError, OSError, ValueError):  # reported where the file is needed
        return set()
    named = (re.match(r"[A-Za-z0-9][\w.-]*", line) for line in lines)
    added = {requirement_name(each) or "" for each in described.additions.requirements}
    return added | {canonicalize_name(each[0]) for each in named if each}
