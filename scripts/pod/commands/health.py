"""`health`: the image's health check: ComfyUI, the door before it, the worker; or the server of a model.

Docker gives it 5 s in all.
"""

from __future__ import annotations

import os
import sys

from pod import comfyui_http, model_server_http
from pod.util import serving


def main(_arguments: list[str]) -> int:
    """Exit 0 when healthy, 1 with the reason when not."""
    if serving.has_comfyui(os.environ):
        reason = comfyui_http.problem() or comfyui_http.door_problem() or comfyui_http.worker_problem()
    else:
        reason = model_server_http.problem()
    if reason:
        print(reason, file=sys.stderr)
        return 1
    return 0
