"""`end`: end what ComfyUI, its worker or a server has left running; start.sh runs it for a killed supervisor.

The kernel ends ComfyUI itself then, and tells what that has started nothing (pod.util.child_processes).
"""

from __future__ import annotations

import os

from pod.decision import RUN
from pod.errors import INTERNAL, PodError
from pod.supervisor import job_worker, process
from pod.util import child_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns 0, whether anything ran or not. Raises PodError."""
    if arguments:
        raise PodError(f"end takes no arguments, but got {arguments[0]!r}.", INTERNAL)
    for name in (process.NAME, process.SERVER, job_worker.NAME):
        child_processes.end(environ.get("PODKILN_RUN") or RUN, name)
    return 0
