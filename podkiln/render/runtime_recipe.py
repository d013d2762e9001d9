"""The recipe of a runtime: one digest of all that its layers are made from, up to podkiln's own code."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import zstandard

from podkiln.canonical_layers import writer
from podkiln.lock.apt import NOT_LOCKED
from podkiln.oci import spec
from podkiln.options import NetworkOptions
from podkiln.render import apt_index, bake_file, build_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.oci.spec import Digest
    from podkiln.plan.plan import Plan
    from podkiln.render.build_context import File

_OWN: Final = ("podkiln/", "bin/", "start.sh")
"""Files that podkiln's own layers are made from."""
_ABOVE: Final = (*_OWN, "Dockerfile", ".dockerignore")
"""Files that no layer of the runtime is made from; of the Dockerfile, what comes before counts by itself."""


def of(plan: Plan) -> Digest:
    """Return the recipe of a plan's runtime. Raises RenderError."""
    # Where packages are taken from changes none of them.
    request = replace(plan.request, network=NetworkOptions())
    anywhere = replace(plan, kept=None, fresh=False, request=request)
    files = build_context.render(anywhere)
    inputs = {
        "writer": [writer.VERSION, writer.LEVEL, zstandard.__version__],
        "dockerfile": _instructions(_dockerfile(files)[0]),
        "files": {
            path: spec.digest_of(file.content)
            for path, file in sorted(files.items())
            if not path.startswith((*_ABOVE, apt_index.FOLDER, apt_index.ADDED))
        },
        "apt": plan.apt.digest if plan.apt else NOT_LOCKED,  # packed, its files depend on this machine's xz
        "inputs": {each.name: each.actual for each in plan.inputs},
    }
    if plan.described.additions.packages:
        inputs["added"] = plan.added_apt.digest if plan.added_apt else NOT_LOCKED
    return spec.digest_of(spec.canonical_json(inputs))


def of_own(plan: Plan) -> Digest:
    """Return the recipe of the layers of podkiln's own code, above a plan's runtime. Raises RenderError."""
    files = build_context.render(plan)
    inputs = {
        "runtime": of(plan),
        "dockerfile": _instructions(_dockerfile(files)[1]),
        "files": {
            path: spec.digest_of(file.content)
            for path, file in sorted(files.items())
            if path.startswith(_OWN)
        },
    }
    return spec.digest_of(spec.canonical_json(inputs))


def _dockerfile(files: Mapping[str, File]) -> tuple[str, str]:
    """Return what the Dockerfile says before the stage of the image, and in it."""
    before, _, own = files["Dockerfile"].content.decode().rpartition(f" AS {bake_file.TARGET}\n")
    return before, own


def _instructions(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]
