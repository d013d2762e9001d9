"""Whether this worker can do its jobs, before it takes the first: what start.sh has found out, and no more.

The runpod SDK asks the checks that are registered with it, tells the platform of one that raises, and ends
the process. Its own ones look again at what start.sh has looked at, make a CUDA context, and take seconds of
each cold start (rp_gpu_fitness.py and rp_system_fitness.py of 1.12.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pod.hardware import gpu_presence
from pod.util.files import recall
from pod.util.finding import FATAL
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def problem(run: Path, environ: Mapping[str, str]) -> str | None:
    """Return why jobs cannot be done here; None where nothing speaks against them.

    Args:
        run: The pod's run folder; without a decision in it, a worker was started by hand.
        environ: The pod's environment.
    """
    decision = recall(run / "decision.json")
    if not decision or environ.get("PODKILN_DOCTOR", "").strip().lower() == "warn":
        return None
    findings = decision.get("findings")
    for each in findings if isinstance(findings, list) else ():
        if isinstance(each, dict) and each.get("level") == FATAL:
            return f"ComfyUI cannot work here: {shown(each.get('message'), 200)}."
    if decision.get("gpu") or "--cpu" in environ.get("COMFYUI_ARGS", "").split():
        return None
    witness = gpu_presence.witness(environ)  # a platform that gives a GPU pays for no job on the CPU
    return f"There is no GPU that ComfyUI can use, and {witness}." if witness else None
