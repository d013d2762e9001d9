"""The main job's command."""

from __future__ import annotations

import logging
import os
from typing import Any

from podkiln.cli.options import names_of
from podkiln.cli.plan import show
from podkiln.errors import UsageError
from podkiln.pipeline import build as job
from podkiln.pipeline.request import BuildRequest
from podkiln.render.bake_file import BuildSecrets

log = logging.getLogger("podkiln")


def build(options: dict[str, Any]) -> None:
    """Build the variants that the options name, and say what came out."""
    request = request_of(options)
    if request.dry_run and request.report:
        raise UsageError("--dry-run builds nothing, so it has no --report.", hint="Give one of the two.")
    if request.dry_run:
        plans, _ = job.decide(request)
        for each in plans if not request.quiet else ():  # the code says whether something is refused
            show(job.with_registry_state(each, request))
        for each in plans:
            each.require()
        return
    for report in job.build(request):
        for line in report.sentences():
            log.info("%s", line)


def request_of(options: dict[str, Any]) -> BuildRequest:
    """Turn options into a request. Raises UsageError."""
    if options["verbose"] and options["quiet"]:
        raise UsageError("--verbose and --quiet exclude each other.", hint="Give one of the two.")
    return BuildRequest(
        variants=names_of(options["variant"]),
        out=options["out"],
        push=options["push"],
        load=options["load"],
        registry=options["registry"],
        tag=options["tag"],
        base=options["base"],
        sources=options["source"],
        allow_substituted=options["allow_substituted"],
        accepted=options["accept_licence"],
        no_weights=options["no_weights"],
        no_cache=options["no_cache"],
        builder=options["builder"],
        mount_from=options["mount_from"],
        copy_from=options["copy_from"],
        spool=options["spool"],
        jobs=options["jobs"],
        report=options["report"],
        dry_run=options["dry_run"],
        quiet=options["quiet"],
        environment=BuildSecrets(
            ca_bundle=options["ca_bundle"],
            python_index=options["python_index"],
            apt_mirror=options["apt_mirror"],
        ),
        environ=os.environ,
    )
