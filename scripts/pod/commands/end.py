"""`end`: end processes that ComfyUI has left running after the supervisor was killed; start.sh runs it.

The kernel ends ComfyUI itself then, and tells what that has started nothing (pod.util.child_processes).
"""

from __future__ import annotations

import os

from pod.decision import RUN
from pod.errors import INTERNAL, PodError
from pod.supervisor.process import NAME
from pod.util import child_processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def main(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> int:
    """Run the command; returns 0, whether anything ran or not. Raises PodError."""
    if arguments:
        raise PodError(f"end takes no arguments, but got {arguments[0]!r}.", INTERNAL)
    child_processes.end(environ.get("PODKILN_RUN") or RUN, NAME)
    return 0
