"""`verify`: what a registry holds, against the lock."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from podkiln import registry as registries
from podkiln.cli.options import json_option, one_of, variant_option
from podkiln.config import variant as variants
from podkiln.errors import UsageError
from podkiln.lock import layers
from podkiln.lock.runtimes import PushedLayers
from podkiln.oci.reference import Reference
from podkiln.options import (
    BuildRequest,
    EngineOptions,
    ImageOptions,
    NetworkOptions,
    RuntimeOptions,
    SubstituteOptions,
    WeightOptions,
    apply,
    option,
)
from podkiln.pipeline import planning, publish, rebuilds
from podkiln.pipeline.request import check_accepted, check_options, image_name
from podkiln.plan import destination
from podkiln.render import runtime_recipe
from podkiln.util import console
from podkiln.verify import image as verify

if TYPE_CHECKING:
    from collections.abc import Mapping

    from podkiln.plan.plan import Plan

log = logging.getLogger("podkiln")


@click.command("verify")
@click.argument("image", required=False)
@variant_option
@apply(RuntimeOptions.options())
@apply(ImageOptions.options("registry", tag="Instead of VARIANT-COMFYUI-cuda-CUDA, where IMAGE is left out."))
@option("--deep", is_flag=True, help="Read all layers too: hash the weights, and look for what hides them.")
@option("--rebuild", is_flag=True, help="Build its runtime again, every step anew, and compare the files.")
@apply(WeightOptions.options("accept_licence", no_weights="The image was pushed with --no-weights."))
@apply(NetworkOptions.options(ca_bundle="PEM file of a corporate CA that signs for it."))
@apply(SubstituteOptions.options("base", "source"))
@apply(NetworkOptions.options("python_index", "apt_mirror"))
@apply(EngineOptions.options("builder"))
@json_option
def verify_command(
    image: str | None, variant: tuple[str, ...], deep: bool, rebuild: bool, as_json: bool, **options: Any
) -> None:
    """Compare IMAGE, as its registry holds it, with the lock of a variant.

    All of manifest, config and labels, the steps in the history, and the digests of layers. Nothing is
    pulled. Without IMAGE, it is the one that `--push` would push.

    With --rebuild, its runtime is built again, and of each layer with another digest it is said which files
    differ, and how. --base, --source, --python-index, --apt-mirror and --builder are for that build.
    """
    if not rebuild:
        _refuse_options_of_a_build(options)
    name = one_of(variant, f"{image or 'what is verified'} is one image")
    pushed = BuildRequest.of([name], os.environ, push=True, **options)
    check_options(pushed)
    described = variants.load(name, pushed.runtime.cuda)
    check_accepted(pushed, planning.models_of([described]), described.nodes)
    made = planning.make_plan(described, replace(pushed, image=ImageOptions()))
    made.require()
    reference = _reference(image, replace(made, request=pushed))
    image, known = str(reference), layers.read(layers.path_of(described))
    settings = registries.RegistryOptions(ca_bundle=pushed.network.ca_bundle)
    if made.nodes and verify.lacks_nodes(reference, settings, described.platform):
        # So that like is compared with like; that they are left out is said all the same.
        made = planning.make_plan(described, made.request, nodes=False)
    with console.Bytes(f"reading {image}") as bar:
        verdict = verify.verify(
            made,
            known,
            reference,
            settings,
            remembered=_remembered(made),
            deep=deep,
            on_progress=bar,
        )
    if rebuild and verdict.held:  # else it cannot be compared, and that was found
        verdict = rebuilds.compare(made, verdict, known, settings)
    log.info("%s", verdict.headline)
    if as_json:
        console.result(verdict.as_json())
    else:
        for line in verdict.lines:
            click.echo(line)
    log.info("%s", verdict.compared)
    verdict.require()


def _refuse_options_of_a_build(options: Mapping[str, Any]) -> None:
    """Raise UsageError for an option that only a build has a use for."""
    for name in ("base", "source", "python_index", "apt_mirror", "builder"):
        if options[name]:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is for a build.", hint="Add --rebuild, or leave it out.")


def _remembered(made: Plan) -> PushedLayers:
    """Return what the lock remembers of the runtime and of podkiln's own layers."""
    recipes = runtime_recipe.of(made), runtime_recipe.of_own(made)
    return PushedLayers.read(publish.runtimes_of(made), *recipes)


def _reference(image: str | None, made: Plan) -> Reference:
    """Return the image to look at: the one named, or the one that a push of the plan goes to."""
    if image is not None:
        asked = made.request.image
        named = (("--registry", asked.registry), ("--tag", asked.tag))
        given = next((name for name, value in named if value), None)
        if given:
            raise UsageError(
                f"{given} sets the image's name, but IMAGE names one already.", hint="Give one of the two."
            )
        return Reference.parse(image)
    if made.destination is None:
        hint = f"Name the image, or its registry. {destination.ways(made.described)}"
        raise UsageError("IMAGE is missing, and no registry is known.", hint=hint)
    return image_name(made)
