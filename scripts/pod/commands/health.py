"""`health`: the image's health check: ComfyUI and the door before it. Docker gives it 5 s in all."""

from __future__ import annotations

import sys

from pod.comfyui_http import door_problem, problem


def main(_arguments: list[str]) -> int:
    """Exit 0 when healthy, 1 with the reason when not."""
    reason = problem() or door_problem()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
