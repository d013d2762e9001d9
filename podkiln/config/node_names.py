"""What a custom node may call things: variables, its folder, its parts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final

from podkiln.util.quoting import shown

WORKSPACE: Final = "{workspace}"
"""What stands for the volume in a value of `environment`."""
_LONGEST_VALUE: Final = 4096
"""Characters of a variable's value; Linux takes 128 KiB, and all of them stand in each log of a start."""
# Beside the volume's folder, or above it: `{workspace}-2`, `{workspace}/..`.
_OUTSIDE: Final = re.compile(r"""\{workspace\}[\w.~-]|(?<![^/:;,=\s"'])\.\.(?![^/:;,=\s"'])""")
_EXAMPLES: Final = "podkiln"
"""The folder of the image's examples: a whitelist of ComfyUI's has names alone, so one name is one node."""
_FOLDER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_OF_COMFYUI: Final = {"websocket_image_save.py", "example_node.py.example", "__pycache__"}
"""What ComfyUI's own tree has in custom_nodes, or makes there."""
# Of the image itself, and of who starts a pod: docs/reference/environment.md.
_TAKEN_VARIABLES: Final = re.compile(
    r"PATH|HOME|BUCKET_\w*|USER|LOGNAME|PWD|LANG|LC_\w*|SHELL|TERM|TMPDIR|ENV|BASH_ENV|LD_\w*|PYTHON\w*|SOURCE_DATE_EPOCH|"
    r"WORKSPACE|MODELS|LORAS|NODES|NODE_REQUIREMENTS|FLAG_PROFILE|ENABLE_\w*|COMFYUI_\w*|FETCH_\w*|"
    r"NVIDIA_\w*|GPU_\w*|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|PIP_CONSTRAINT|UV_CONSTRAINT|"
    r"HF_TOKEN|HF_ENDPOINT|HUGGING_FACE_HUB_TOKEN|CIVITAI_\w*|GITHUB_ENDPOINT|(?i:(HTTPS?|ALL|NO)_PROXY)|"
    r"PODKILN_\w*|COMFY_ORG_API_KEY|REFRESH_WORKER|API_TOKEN|SERVE_\w*|WORKER_\w*|NO_COLOR|"
    r"WEB_\w*|PORT|PORT_HEALTH|HEALTH_CHECK_PATH|PUBLIC_KEY|SSH_\w*|JUPYTER_\w*|RUNPOD_\w*|VAST_\w*"
)
_OF_THE_POD: Final = re.compile(
    r"PODKILN_(AGAIN|BAKED|CGROUP_ROOT|DEBUG|DOCTOR|FETCH_\w*|LOCAL|MEMINFO|NODES_SEEN|NVIDIA_SMI_TIMEOUT|OVERLAY|"
    r"ROOT|RUN|SERVE|STARTED_BY|STARTS|VENV|VOLUME\w*)"
)
"""What scripts/pod reads or sets; in other names that begin so, nodes find the code of others."""


def free_variable(name: str) -> str:
    """Return a variable's name. Raises ValueError for one of the image itself, or of who starts a pod."""
    if _TAKEN_VARIABLES.fullmatch(name):
        raise ValueError(f"{name} is a variable of the image itself, and no node's")
    return name


def place_variable(name: str) -> str:
    """Return the name of a variable in which a node finds a folder or a program. Raises ValueError."""
    own = name.startswith("PODKILN_") and not _OF_THE_POD.fullmatch(name)
    return name if own else free_variable(name)


def variable_value(value: str) -> str:
    """Return a value of `environment`. Raises ValueError, in words that go on after the variable's name."""
    if len(value) > _LONGEST_VALUE:
        raise ValueError(f"expected at most {_LONGEST_VALUE} characters (it has {len(value)})")
    if not value.isprintable() or re.search(r"\{(?!workspace\})", value):
        raise ValueError(f"expected one line, in which {WORKSPACE} alone is filled in")
    if WORKSPACE in value and _OUTSIDE.search(value):
        raise ValueError(f"expected a path in {WORKSPACE}, and {shown(value)} leads out of it")
    return value


def folder_name(folder: str) -> str:
    """Return a folder that ComfyUI looks for nodes in. Raises ValueError."""
    if not _FOLDER.fullmatch(folder):
        raise ValueError(f"{shown(folder)} is no name of a folder: letters, digits and . _ -")
    if folder.endswith((".disabled", ".py", ".pyc")) or folder in _OF_COMFYUI:
        raise ValueError(f"{shown(folder)} is a name that ComfyUI does not take for a folder with a node")
    if folder == _EXAMPLES:
        raise ValueError(f"{shown(folder)} is the folder of the image's own example workflows")
    return folder


def part_name(path: str) -> str:
    """Return what a submodule is called: the end of its path, in lower case."""
    return re.sub(r"[^a-z0-9._-]", "-", PurePosixPath(path).name.lower())
