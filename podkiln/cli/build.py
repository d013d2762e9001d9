"""The main job's command."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

from podkiln.cli.options import names_of
from podkiln.cli.plan import show
from podkiln.errors import UsageError
from podkiln.options import BuildRequest
from podkiln.pipeline import build as job
from podkiln.pipeline import planning
from podkiln.pipeline.publish import registry_options

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger("podkiln")


def build(variants: tuple[str, ...], options: Mapping[str, Any]) -> None:
    """Build the variants named, as the options say, and say what came out."""
    if options["verbose"] and options["quiet"]:
        raise UsageError("--verbose and --quiet exclude each other.", hint="Give one of the two.")
    request = BuildRequest.of(names_of(variants), os.environ, **options)
    if request.output.dry_run and request.output.report:
        raise UsageError("--dry-run builds nothing, so it has no --report.", hint="Give one of the two.")
    if request.output.dry_run:
        plans, settings = planning.decide(request), registry_options(request)
        for each in plans if not options["quiet"] else ():  # the code says whether something is refused
            show(planning.with_registry_state(each, settings))
        for each in plans:
            each.require()
        return
    for report in job.build(request):
        for line in report.sentences():
            log.info("%s", line)
