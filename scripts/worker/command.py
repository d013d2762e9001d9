"""`/opt/venv/bin/python -I /opt/podkiln worker`: take RunPod's jobs for this pod's ComfyUI.

The runpod SDK is in that Python, where an image has it, and gets what stands behind the name: --test_input
JSON runs one job without a platform, --rp_serve_api serves its HTTP interface. Without the SDK: --schema
[PRESET] prints the JSON Schema of what requests for presets say, --example PRESET an example of one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util import env
from worker import bucket, children, presets, runpod_sdk
from worker.cleaning import Cleaner
from worker.errors import JobError
from worker.handler import Worker
from worker.job import Place
from worker.job_file import JobFile
from worker.presets import Presets
from worker.request import FREE

if TYPE_CHECKING:
    from collections.abc import Mapping


def main(argv: list[str]) -> int:
    """Serve until told to stop; returns the exit code. Raises PodError."""
    match argv:
        case ["--schema" | "--example" as wanted]:
            return _show(wanted, None, _presets(os.environ))
        case ["--schema" | "--example" as wanted, name]:
            return _show(wanted, name, _presets(os.environ))
    sys.argv = ["podkiln worker", *argv]  # the SDK reads its options from there
    children.end_with_this()
    runpod_sdk.serve(worker(os.environ))
    return 0


def worker(environ: Mapping[str, str]) -> Worker:
    """Return the worker that an environment describes. Raises SettingError."""
    private = env.is_on(
        "RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", environ.get("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS")
    )
    refresh = environ.get("REFRESH_WORKER", "").strip().lower()
    concurrency = env.number("WORKER_CONCURRENCY", environ.get("WORKER_CONCURRENCY"), 1)
    place = Place(
        run=Path(environ.get("PODKILN_RUN", "/run/podkiln")),
        api_key=environ.get("COMFY_ORG_API_KEY") or None,
        private_urls=private,
        bucket=bucket.of_worker(environ),
        apart=concurrency > 1,
        cleaner=Cleaner(_keep(environ.get("WORKER_KEEP_HOURS", "").strip())),
    )
    jobs = JobFile(Path(environ.get("PODKILN_LOCAL", "/var/lib/podkiln")) / "jobs.json")
    return Worker(
        place,
        jobs,
        refresh=refresh != FREE and env.is_on("REFRESH_WORKER", refresh),
        free=refresh == FREE,
        concurrency=concurrency,
        warm_up=environ.get("WARMUP_WORKFLOW", "").strip(),
        presets=_presets(environ),
    )


def _keep(hours: str) -> float | None:
    """Return for how many seconds files of jobs are kept; None for ever. Raises SettingError."""
    if not hours:
        return None
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", hours):
        raise env.SettingError(
            f"WORKER_KEEP_HOURS={env.short(hours)!r} is not a number of hours, such as 0.5 or 24."
        )
    return float(hours) * 3600


def _presets(environ: Mapping[str, str]) -> Presets:
    root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
    return Presets.load(root, Path(environ.get("PODKILN_RUN") or "/run/podkiln"))


def _show(wanted: str, name: str | None, known: Presets) -> int:
    """Print what clients of presets read: of one, or of all by their ids. Raises PodError."""
    make = presets.schema if wanted == "--schema" else presets.example
    try:
        chosen = known.meant({presets.KEY: name}) if name else None
    except JobError as error:
        raise PodError(str(error), ARGUMENTS_REFUSED) from None
    shown = make(chosen) if chosen else {each.id: make(each) for each in known.known.values()}
    json.dump(shown, sys.stdout, indent=1, ensure_ascii=False)
    print()
    return 0
