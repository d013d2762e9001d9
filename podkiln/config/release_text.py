"""The files of a ComfyUI release as they are written: in one form, so that reading twice changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from podkiln.config import cli_args, folder_paths

if TYPE_CHECKING:
    from podkiln.config.cli_args import ReadFlag
    from podkiln.config.folder_paths import ReadFolders

_WIDTH = 120  # columns of a list; a flag always stands on one line
_FLAGS = """\
# The flags of ComfyUI {release}, in the order of its parser: {file}.
# Written by `./build.py comfyui`; do not edit. A name that is not here stops a boot. What podkiln knows of
# flags besides stands in variants/flags/annotations.yaml.
#
#   arity     none (a switch, when not written) | one | optional (none or one) | any | some (one or more)
#   most      at most so many values
#   type      str (when not written) | int | float | folder, file (must be there when ComfyUI starts)
#   choices   the only values
#   group     flags of one group exclude each other (argparse's mutually exclusive groups)
#   repeat    may be given several times, each adds (argparse's append); of all others ComfyUI takes the last
#   default   its value when it is not given; not written where that is None, a list or computed
#   action    the class in {file} that reads its values
"""
_FOLDERS = """\
# The model folders that ComfyUI {release} knows by itself, in its order: {file}.
# Written by `./build.py comfyui`; do not edit. A key that is not here makes a new folder, which lists every
# file whatever its extension.
#
#   folders   below models/
#   outside   keys too, but of folders beside models/: nothing of a model goes there
#   legacy    old names that are still read, as keys or as directories, and the key that each belongs to
"""
_REQUIREMENTS = """\
# What ComfyUI {release} itself asks for: the lines of its requirements.txt. They stand where another
# requirements file has the line `-r {{comfyui}}`. Written by `./build.py comfyui`; do not edit.
"""


@dataclass(frozen=True)
class Pin:
    """Which source a release is."""

    release: str
    repo: str
    commit: str
    tree: str


def flags(pin: Pin, found: tuple[ReadFlag, ...]) -> str:
    """Return flags/comfyui-V.yaml."""
    head = {"comfyui": pin.release, "repo": pin.repo, "commit": pin.commit, "tree": pin.tree}
    rows = "".join(f"  - {_flow(_row(flag))}\n" for flag in found)
    comment = _FLAGS.format(release=pin.release, file=cli_args.FILE)
    return f"{comment}{_block(head)}\nflags:\n{rows}"


def folders(pin: Pin, found: ReadFolders) -> str:
    """Return flags/folders-V.yaml."""
    comment = _FOLDERS.format(release=pin.release, file=folder_paths.FILE)
    head = {"comfyui": pin.release, "commit": pin.commit}
    outside = f"outside: {_flow(list(found.outside))}\n"
    parts = (_block({"folders": list(found.folders)}), outside, _block({"legacy": found.legacy}))
    return "\n".join((f"{comment}{_block(head)}", *parts))


def requirements(pin: Pin, found: tuple[str, ...]) -> str:
    """Return python/comfyui-V.in."""
    lines = "".join(f"{line}\n" for line in found)
    return f"{_REQUIREMENTS.format(release=pin.release)}# Commit {pin.commit}.\n\n{lines}"


def _row(flag: ReadFlag) -> dict[str, Any]:
    plain = cli_args.ReadFlag(flag.name, flag.line)
    keys = ("name", "arity", "type", "choices", "most", "group", "repeat", "default", "action")
    values = {key: getattr(flag, key) for key in keys}
    kept = {key: value for key, value in values.items() if key == "name" or value != getattr(plain, key)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.strip()


def _block(value: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=False, sort_keys=False, width=_WIDTH, indent=2)
    return text.replace("\n- ", "\n  - ")
