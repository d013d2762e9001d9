"""What a node of podkiln's own asks its pod: where code and weights lie, and how far to offload.

The same file lies in the folder of each such node, since ComfyUI loads each folder by itself;
tests/unit/nodes/test_pod_facts.py keeps them equal.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

AUTO: Final = "auto"
FULL: Final = "model_full_load"
OFFLOAD: Final = "model_cpu_offload"
SEQUENTIAL: Final = "sequential_cpu_offload"
MEMORY_MODES: Final = (FULL, OFFLOAD, SEQUENTIAL)
"""What GPU_MEMORY_MODE may say, least offloading first; `_and_qfloat8` may follow."""
_ALIASES: Final = {"full": FULL}
_FP8: Final = "_and_qfloat8"
_CODE: Final = "docs/how-to/own-nodes.md of podkiln says how it comes there"


class NodeError(RuntimeError):
    """A failure that a user can mend: one sentence, which ComfyUI shows at the node."""


def memory_mode(asked: str, model: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str | None]:
    """Return one of MEMORY_MODES, and what is to be said about it, if anything.

    Args:
        asked: What the node's own input says; `auto` leaves it to the pod.
        model: The model's id in decision.json.
        environ: GPU_MEMORY_MODE, and PODKILN_RUN, where the start has written what it chose for each model.

    Raises NodeError for a mode that does not exist.
    """
    words = (asked, _chosen_at_start(model, environ), environ.get("GPU_MEMORY_MODE", ""))
    word = next((each.lower() for each in words if each and each.lower() != AUTO), FULL)
    mode = _ALIASES.get(word, word).removesuffix(_FP8)
    if mode not in MEMORY_MODES:
        raise NodeError(f"{word!r} is no memory mode: it is one of {', '.join((AUTO, *MEMORY_MODES))}.")
    if word.endswith(_FP8):
        return mode, f"{model} has no fp8 weights, so {word} is {mode} here"
    return mode, None


def _chosen_at_start(model: str, environ: Mapping[str, str]) -> str | None:
    """Return what decision.json says of a model; None where nobody has decided, as outside a pod."""
    path = Path(environ.get("PODKILN_RUN") or "/run/podkiln", "decision.json")
    try:
        models = json.loads(path.read_text(encoding="utf-8"))["models"]
        mode = next((each["memory_mode"] for each in models if each["id"] == model), None)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return mode if isinstance(mode, str) else None


def code_folder(title: str, variable: str, witness: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with upstream's code.

    Args:
        title: What the model is called.
        variable: The variable that names the folder.
        witness: A file that the folder must have.
        environ: Where the variable is looked up.

    Raises NodeError where it is not there.
    """
    folder = environ.get(variable)
    if not folder:
        raise NodeError(f"The code of {title} is not in this pod ({variable} is not set): {_CODE}.")
    if not Path(folder, witness).is_file():
        raise NodeError(f"{variable}={folder} has no {witness}, so it is not the code of {title}: {_CODE}.")
    return Path(folder)


def model_roots(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return the folders that hold models: the volume's, that of a serverless worker's, then the image's.

    As podkiln-fetch has them (scripts/pod/commands/fetch.py), which fetches nothing that is in one of them.
    """
    roots = [environ.get("WORKSPACE") or "/workspace", environ.get("PODKILN_VOLUME") or "/runpod-volume"]
    return [
        *(Path(root, "models") for root in dict.fromkeys(roots)),
        Path(environ.get("PODKILN_BAKED") or "/opt/models"),
    ]


def weights(
    title: str, folder: str, names: Sequence[str], enable: str, environ: Mapping[str, str] = os.environ
) -> dict[str, Path]:
    """Return the files of a model's folder by name, each from the volume or, failing that, from the image.

    Raises NodeError that names the first one missing.
    """
    found = {}
    for name in names:
        places = [root / folder / name for root in model_roots(environ)]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise NodeError(
                f"{title} needs {PurePosixPath(folder, name)}, which is in none of "
                f"{', '.join(f'{root}' for root in model_roots(environ))}: start the pod with {enable}=1, "
                "which fetches it."
            )
        found[name] = path
    return found
