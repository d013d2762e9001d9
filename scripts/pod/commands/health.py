"""`health`: the image's health check: ComfyUI, the door before it, the worker. Docker gives it 5 s in all."""

from __future__ import annotations

import sys

from pod.comfyui_http import door_problem, problem, worker_problem


def main(_arguments: list[str]) -> int:
    """Exit 0 when healthy, 1 with the reason when not."""
    reason = problem() or door_problem() or worker_problem()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
