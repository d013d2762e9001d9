"""Checks before a build for what would make it fail late: seconds instead of minutes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pod.net.hubs import HUGGINGFACE
from podkiln import registry
from podkiln.errors import SourceError, UsageError
from podkiln.pipeline.request import image_name
from podkiln.weights.source import SourceClient
from podkiln.weights.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podkiln.options import BuildRequest
    from podkiln.plan.plan import Plan

    WithRegistryState = Callable[[Plan], Plan]


def check(plans: Sequence[Plan], request: BuildRequest, foresee: WithRegistryState) -> None:
    """See that report, registry, spool and sources will do what is asked of them.

    `foresee` tells which weight layers need not move; it asks the registry, so only where that matters.

    Raises:
        UsageError: The report or the spool cannot be written, or the spool's disk is too small.
        RegistryError: The registry does not let us push.
        SourceError: A setting of a source is malformed, or a gated model has no token.
    """
    _check_report(request)
    _check_pushing(plans, request)
    _check_spool(plans, request, foresee)
    _check_sources(plans, request, foresee)


def _check_report(request: BuildRequest) -> None:
    """Check that the report can be written."""
    if not request.output.report:
        return
    folder = request.output.report.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"--report: there is no folder {folder} that can be written to.")


def _check_pushing(plans: Sequence[Plan], request: BuildRequest) -> None:
    """Begin an upload and cancel it: a wrong login must fail before the build, not after."""
    if not request.image.push:
        return
    settings = registry.RegistryOptions(ca_bundle=request.network.ca_bundle, attempts=2)
    for image in {each.name: each for each in map(image_name, plans)}.values():
        with registry.Repository(image, settings, push=True) as repository:
            repository.try_upload()


def _check_spool(plans: Sequence[Plan], request: BuildRequest, foresee: WithRegistryState) -> None:
    """Check that the disk holds what has to be made."""
    if request.transfer.spool is None:
        return
    for made in plans:
        Spool(request.transfer.spool).require(foresee(made).lacking, request.transfer.jobs)


def _check_local(plans: Sequence[Plan], foresee: WithRegistryState) -> None:
    """See that files of this machine that have to be read are there, with the size that is described."""
    reading = [made for made in plans if any(offer.model.local for offer in made.baked)]
    lacking = (each for made in reading for each in foresee(made).lacking)
    for weight in (weight for each in lacking for weight in each.weights):
        if weight.origin["kind"] == "local":
            path = Path(weight.origin["path"])
            if not path.is_file():
                raise SourceError(f"{weight.model}: there is no file {path}.")
            if path.stat().st_size != weight.size:
                what = f"{path} has {path.stat().st_size} bytes, and {weight.size} are described."
                raise SourceError(f"{weight.model}: {what}")


def _check_sources(plans: Sequence[Plan], request: BuildRequest, foresee: WithRegistryState) -> None:
    """Check that tokens and addresses of the sources are set and well-formed."""
    baking = [made for made in plans if made.bundles]
    if not baking:
        return
    _check_local(baking, foresee)
    hubs = SourceClient.from_environment(os.environ, request.network.ca_bundle).hubs
    if hubs.hf_token or hubs.huggingface != HUGGINGFACE:  # a mirror may give it without a token
        return
    for made in baking:
        gated = {offer.id for offer in made.baked if offer.model.gated}
        lacking = foresee(made).lacking if gated else ()
        for weight in (weight for each in lacking for weight in each.weights):
            if weight.model in gated and weight.origin["kind"] == "huggingface":
                raise SourceError(
                    f"{weight.model} is gated: Hugging Face requires you to accept its licence.",
                    hint=f"Accept it at {HUGGINGFACE}/{weight.origin['repo']}, and set HF_TOKEN.",
                )
