"""`verify`: what a registry holds, against the lock."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import click

from podkiln import registry as registries
from podkiln.cli.options import (
    EXISTING_FILE,
    json_option,
    one_of,
    option,
    registry_option,
    variant_option,
)
from podkiln.config import variant as variants
from podkiln.errors import UsageError
from podkiln.lock import layers
from podkiln.oci.reference import Reference
from podkiln.pipeline import build
from podkiln.pipeline.request import BuildRequest, check_certificates, image_name
from podkiln.plan import destination
from podkiln.util import console
from podkiln.verify import image as verify

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.plan.plan import Plan

log = logging.getLogger("podkiln")


@click.command("verify")
@click.argument("image", required=False)
@variant_option
@registry_option
@option("--tag", metavar="T", help="Instead of VARIANT-COMFYUI-cuda-CUDA, where IMAGE is left out.")
@option("--deep", is_flag=True, help="Read all layers too: hash the weights, and look for what hides them.")
@option("--no-weights", is_flag=True, help="The image was pushed with --no-weights.")
@option("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA that signs for it.")
@json_option
def verify_command(
    image: str | None,
    variant: tuple[str, ...],
    registry: str | None,
    tag: str | None,
    deep: bool,
    no_weights: bool,
    ca_bundle: Path | None,
    as_json: bool,
) -> None:
    """Compare IMAGE, as its registry holds it, with the lock of a variant.

    All of manifest, config and labels, the steps in the history, and the digests of weight layers. Nothing
    is pulled. Without IMAGE, it is the one that `--push` would push.
    """
    name = one_of(variant, f"{image or 'what is verified'} is one image")
    if ca_bundle:
        check_certificates(ca_bundle)
    described = variants.load(name)
    made = build.make_plan(described, BuildRequest(variants=(name,), no_weights=no_weights))
    made.require()
    reference = _reference(image, made, registry, tag)
    image = str(reference)
    with console.Bytes(f"reading {image}") as bar:
        verdict = verify.verify(
            made,
            layers.read(layers.path_of(described)),
            reference,
            registries.RegistryOptions(ca_bundle=ca_bundle),
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


def _reference(image: str | None, made: Plan, registry: str | None, tag: str | None) -> Reference:
    """Return the image to look at: the one named, or the one that a push of the plan goes to."""
    if image is not None:
        given = next((name for name, value in (("--registry", registry), ("--tag", tag)) if value), None)
        if given:
            raise UsageError(
                f"{given} sets the image's name, but IMAGE names one already.", hint="Give one of the two."
            )
        return Reference.parse(image)
    asked = BuildRequest((made.name,), push=True, registry=registry, tag=tag, environ=os.environ)
    if asked.destination(made.described) is None:
        hint = f"Name the image, or its registry. {destination.ways(made.described)}"
        raise UsageError("IMAGE is missing, and no registry is known.", hint=hint)
    return image_name(made, asked)
