"""PyWorker's configuration for vast.ai, beside the Dockerfile of a variant that is served over HTTP.

Format: vastai 1.9.1, vastai.serverless.server.worker (https://docs.vast.ai/serverless). PyWorker follows a
log file for the line that says that the model is there, then times the benchmark's request, then passes
requests on to the routes that it is told.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pod.util import serving
from podkiln.config import presets, python_requirements
from podkiln.config.document import ROOT
from podkiln.config.preset import MEDIA
from podkiln.config.serving import DIFFUSERS
from podkiln.lock import served_model
from podkiln.render import templates
from podkiln.render.context_file import File

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

_FOLDER: Final = "pyworker"
_REQUIREMENTS: Final = ROOT / "variants" / "python" / "pyworker.in"
_LOG: Final = "/var/log/podkiln-serve.log"
# Those that answer on the connection that asks: PyWorker sends the next request to any worker, so a job's
# number would be worth nothing there.
_ROUTES: Final = {serving.HTTP: ("/runsync",), DIFFUSERS: ("/generate", "/v1/images/generations")}
_OF_A_PROMPT: Final = "text-to-"
_BENCHMARKS: Final = {
    serving.HTTP: "Without a seed, so at random each time: a repeated seed would time ComfyUI's cache.",
    DIFFUSERS: "Give it the size and steps that your clients ask for.",
}


def files(plan: Plan) -> dict[str, File]:
    """Return the files for PyWorker, by path; none for an image that vast.ai cannot send requests to.

    benchmark.json is left out where no request is known that its image takes; worker.py asks for it then.
    Raises RenderError.
    """
    serve = plan.described.spec.serve
    if serve not in _ROUTES:
        return {}
    facts = {
        "variant": {"name": plan.name},
        "log": _LOG,
        "port": serving.PORT,
        "routes": _ROUTES[serve],
        "benchmark_note": _BENCHMARKS[serve],
        "ready": serving.READY,
        "never_ready": (serving.NOT_READY, serving.STOPS),
    }
    made = {
        "worker.py": templates.render("pyworker/worker.py.j2", facts),
        "requirements.txt": File(
            "".join(f"{each}\n" for each in python_requirements.plain_lines(_REQUIREMENTS)).encode()
        ),
    }
    if request := _benchmark(plan):
        made["benchmark.json"] = File(f"{json.dumps(request, indent=2, ensure_ascii=False)}\n".encode())
    return {f"{_FOLDER}/{name}": file for name, file in made.items()}


def _benchmark(plan: Plan) -> dict[str, Any] | None:
    """Return the request to time, one that needs no file; None where none is known.

    It is of the fixed preset, else of a model that is on; where a model is locked, a prompt, if that is all
    it needs: PyWorker takes how soon a request fails for how fast the card is.
    """
    spec = plan.described.spec
    if spec.serve == DIFFUSERS:
        return {"prompt": "a lighthouse on a cliff at dusk"} if _takes_a_prompt(plan) else None
    there = presets.examples(plan.described, plan.offered)
    if spec.preset:
        return there[spec.preset]
    on = set(spec.models.default)
    for row in presets.to_json(plan.described, plan.offered)["presets"]:
        if on.issuperset(each["id"] for each in row["models"]) and not any(
            map(_is_file, row["inputs"].values())
        ):
            return there[row["id"]]
    return None


def _takes_a_prompt(plan: Plan) -> bool:
    """Whether the locked model makes something of a prompt alone; of what is not locked, that is assumed."""
    words = plan.lock.model.document.words if plan.lock.model else ()
    if any(word.role == "controlnet" for word in words):
        return False  # it wants a picture to be steered by
    decided = (served_model.decision(word) for word in words if word.role == "model")
    return all(each is None or each.task.startswith(_OF_A_PROMPT) for each in decided)


def _is_file(described: dict[str, Any]) -> bool:
    return described["type"] in MEDIA and bool(described.get("required"))
