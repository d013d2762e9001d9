"""What the process tells the node: lines that begin with a mark, with JSON after it."""

from __future__ import annotations

import json
from typing import Any, Final

MARK: Final = "podkiln:"
"""The same as in the node's process.py."""
_LESS: Final = {
    "model_full_load": "model_cpu_offload or sequential_cpu_offload",
    "model_cpu_offload": "sequential_cpu_offload",
}


def say(**message: Any) -> None:
    """Tell the node something: `done` and `of`, or `why` nothing comes."""
    print(f"{MARK}{json.dumps(message)}", flush=True)


def reason(err: BaseException, mode: str) -> str:
    """Return one sentence for what upstream's code raised."""
    if type(err).__name__ == "OutOfMemoryError":
        less = _LESS.get(mode)
        hint = f"set memory_mode to {less}" if less else "ask for fewer frames or a smaller size"
        return f"InfCam ran out of the card's memory in mode {mode}: {hint}."
    if isinstance(err, ModuleNotFoundError):
        return (
            f"InfCam's environment lacks the module {err.name}: "
            "PODKILN_INFCAM_PYTHON names the Python of one that has it."
        )
    first = (str(err).strip().splitlines() or [""])[0]
    return f"InfCam's code failed: {type(err).__name__}: {first}"
