"""`/opt/venv/bin/python -I /opt/podkiln worker`: take RunPod's jobs for this pod's ComfyUI.

The runpod SDK is in that Python, where an image has it, and gets what stands behind the name: --test_input
JSON runs one job without a platform, --rp_serve_api serves its HTTP interface. Without the SDK: --schema
[PRESET] prints the JSON Schema of what requests for presets say, --example PRESET an example of one.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util.env import is_on
from worker import presets, runpod_sdk
from worker.errors import JobError
from worker.handler import Worker
from worker.job import Place
from worker.job_file import JobFile
from worker.presets import Presets

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
    runpod_sdk.serve(worker(os.environ))
    return 0


def worker(environ: Mapping[str, str]) -> Worker:
    """Return the worker that an environment describes. Raises SettingError."""
    private = is_on("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS", environ.get("RUNPOD_ALLOW_PRIVATE_DOWNLOAD_URLS"))
    refresh = is_on("REFRESH_WORKER", environ.get("REFRESH_WORKER"))
    place = Place(
        run=Path(environ.get("PODKILN_RUN", "/run/podkiln")),
        api_key=environ.get("COMFY_ORG_API_KEY") or None,
        private_urls=private,
    )
    jobs = JobFile(Path(environ.get("PODKILN_LOCAL", "/var/lib/podkiln")) / "jobs.json")
    return Worker(place, jobs, refresh=refresh, presets=_presets(environ))


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
