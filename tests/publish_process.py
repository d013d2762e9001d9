"""The second half of the main job alone, from a runtime that is there: in a test, or as a process to kill.

As a process: VARIANT LAYOUT IMAGE [SPOOL]; prints the report, as JSON. Sources are those of the environment.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(_ROOT), str(_ROOT / "scripts")]

from podkiln.config import variant  # noqa: E402 - the path comes first
from podkiln.oci import layout  # noqa: E402 - the path comes first
from podkiln.oci.reference import Reference  # noqa: E402
from podkiln.options import BuildRequest  # noqa: E402
from podkiln.pipeline import planning, publish  # noqa: E402 - the path comes first
from podkiln.pipeline.publish import Publisher  # noqa: E402
from podkiln.pipeline.report import Report  # noqa: E402


def deliver(described: Path, runtime: Path, image: str, **transfer: Any) -> Report:
    """Bake and push one image; the layout of the runtime gains the image's two documents."""
    name = Reference.parse(image)
    where = f"{name.host}/{name.repository.rpartition('/')[0]}"
    request = BuildRequest.of([str(described)], push=True, registry=where, **transfer)
    plan = planning.make_plan(variant.load(str(described)), request)
    publisher = Publisher(plan, name, publish.sources_of(plan), publish.registry_options(request))
    done = publisher.publish(layout.read(runtime))
    return Report(plan, image, "", done.layout, done.seconds, done.baked, done.pushed)


if __name__ == "__main__":
    _variant, _runtime, _image, *_spool = sys.argv[1:]
    _made = deliver(Path(_variant), Path(_runtime), _image, spool=Path(_spool[0]) if _spool else None)
    sys.stdout.write(json.dumps(_made.as_json()))
