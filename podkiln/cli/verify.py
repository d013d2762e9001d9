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
from podkiln.lock import layers, runtimes
from podkiln.oci.reference import Reference
from podkiln.oci.spec import Digest
from podkiln.options import BuildRequest, ImageOptions, NetworkOptions, WeightOptions, apply, option
from podkiln.pipeline import build
from podkiln.pipeline.request import check_certificates, image_name
from podkiln.plan import destination
from podkiln.render import runtime_recipe
from podkiln.util import console
from podkiln.verify import image as verify

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

log = logging.getLogger("podkiln")


@click.command("verify")
@click.argument("image", required=False)
@variant_option
@apply(ImageOptions.options("registry", tag="Instead of VARIANT-COMFYUI-cuda-CUDA, where IMAGE is left out."))
@option("--deep", is_flag=True, help="Read all layers too: hash the weights, and look for what hides them.")
@apply(WeightOptions.options(no_weights="The image was pushed with --no-weights."))
@apply(NetworkOptions.options(ca_bundle="PEM file of a corporate CA that signs for it."))
@json_option
def verify_command(
    image: str | None, variant: tuple[str, ...], deep: bool, as_json: bool, **options: Any
) -> None:
    """Compare IMAGE, as its registry holds it, with the lock of a variant.

    All of manifest, config and labels, the steps in the history, and the digests of layers. Nothing is
    pulled. Without IMAGE, it is the one that `--push` would push.
    """
    name = one_of(variant, f"{image or 'what is verified'} is one image")
    pushed = BuildRequest.of([name], os.environ, push=True, **options)
    if pushed.network.ca_bundle:
        check_certificates(pushed.network.ca_bundle)
    described = variants.load(name)
    made = build.make_plan(described, replace(pushed, image=ImageOptions()))
    made.require()
    reference = _reference(image, replace(made, request=pushed))
    image = str(reference)
    with console.Bytes(f"reading {image}") as bar:
        verdict = verify.verify(
            made,
            layers.read(layers.path_of(described)),
            reference,
            registries.RegistryOptions(ca_bundle=pushed.network.ca_bundle),
            runtime=_runtime(made),
            deep=deep,
            on_progress=bar,
        )
    if as_json:
        console.result(verdict.as_json())
    else:
        for finding in verdict.findings:
            click.echo(finding)
    verdict.require()
    log.info("%s (%s) is what the lock of %s says.", image, verdict.digest, made.name)
    log.info("%s", verdict.compared)


def _runtime(made: Plan) -> list[Digest]:
    """Return the layers of the runtime, where the lock remembers them."""
    known = runtimes.read(runtimes.path_of(made.described, substituted=False)).get(runtime_recipe.of(made))
    return [Digest(each.digest) for each in known.layers] if known else []


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
