"""`python -m infcam_runner REQUEST`: the file that the node's job.py writes, in the job's folder."""

from __future__ import annotations

import json
import os
import runpy
import sys
import traceback
from pathlib import Path

from . import depth, frames, parent, pipeline, unused, words

SCRIPT = "inference_infcam.py"
VARIABLE = "PODKILN_INFCAM_DEVICE"
"""Another device than the card, for tests: cpu."""


def main(arguments: list[str]) -> int:
    """Run upstream's script; returns the exit code."""
    parent.watch()
    request = Path(arguments[0])
    asked = json.loads(request.read_text(encoding="utf-8"))
    os.chdir(request.parent)
    sys.path.insert(0, asked["code"])
    device = os.environ.get(VARIABLE) or "cuda"
    try:
        unused.install()
        frames.install(Path("frames.npy"), Path("result.npy"))
        depth.install(asked["mode"], device)
        pipeline.install(asked["mode"], device)
        sys.argv = [SCRIPT, *asked["arguments"]]
        runpy.run_path(str(Path(asked["code"], SCRIPT)), run_name="__main__")
    except Exception as err:  # noqa: BLE001 - whatever upstream raises becomes one sentence, and a log
        traceback.print_exc()
        words.say(why=words.reason(err, asked["mode"]))
        return 1
    if not Path("result.npy").is_file():
        words.say(why="InfCam's script ended without a video: what it said is in ComfyUI's log.")
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
