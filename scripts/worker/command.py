"""`python3 -I /opt/podkiln worker`: take RunPod's jobs for this pod's ComfyUI.

What stands behind the name goes to the runpod SDK: --test_input JSON runs one job without a platform,
--rp_serve_api serves its HTTP interface.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pod import comfyui_http
from pod.util.env import SettingError, short
from worker import runpod_sdk
from worker.handler import Worker
from worker.job import Place
from worker.job_file import JobFile

if TYPE_CHECKING:
    from collections.abc import Mapping

_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")


def main(argv: list[str]) -> int:
    """Serve until told to stop; returns the exit code. Raises PodError."""
    sys.argv = ["podkiln worker", *argv]  # the SDK reads its options from there
    runpod_sdk.serve(worker(os.environ))
    return 0


def worker(environ: Mapping[str, str]) -> Worker:
    """Return the worker that an environment describes. Raises SettingError."""
    place = Place(
        server=comfyui_http.address(comfyui_http.arguments()),
        run=Path(environ.get("PODKILN_RUN", "/run/podkiln")),
        api_key=environ.get("COMFY_ORG_API_KEY") or None,
        private_urls=_is_on(
            "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", environ.get("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS")
        ),
    )
    jobs = JobFile(Path(environ.get("PODKILN_LOCAL", "/var/lib/podkiln")) / "jobs.json")
    return Worker(place, jobs, refresh=_is_on("REFRESH_WORKER", environ.get("REFRESH_WORKER")))


def _is_on(name: str, value: str | None) -> bool:
    word = (value or "").strip().lower()
    if word not in _YES + _NO:
        raise SettingError(f"{name}={short(word)!r} is not valid: give true or false.")
    return word in _YES
