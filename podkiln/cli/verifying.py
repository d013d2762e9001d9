"""`verify`: what a registry holds, against the lock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import click

from podkiln import job, output, registry, remembered, verify
from podkiln import variant as variants
from podkiln.cli.options import EXISTING_FILE, json_option, names_of, variant_option
from podkiln.errors import UsageError
from podkiln.reference import Reference
from podkiln.request import Request

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("podkiln")


@click.command("verify")
@click.argument("image")
@variant_option
@click.option(
    "--deep", is_flag=True, help="Read all layers too: hash the weights, and look for what hides them."
)
@click.option("--no-weights", is_flag=True, help="The image was pushed with --no-weights.")
@click.option("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA that signs for it.")
@json_option
def verify_command(
    image: str, variant: str | None, deep: bool, no_weights: bool, ca_bundle: Path | None, as_json: bool
) -> None:
    """Compare IMAGE, as its registry holds it, with the lock of a variant.

    All of manifest, config, labels and history, and the digests of weight layers. Nothing is pulled.
    """
    names = names_of(variant)
    if len(names) > 1:
        raise UsageError(f"--variant: {image} is one image, so it can only be one variant.")
    described = variants.load(names[0])
    made = job.make_plan(described, Request(variants=names, no_weights=no_weights))
    made.require()
    with output.Bytes(f"reading {image}") as bar:
        verdict = verify.verify(
            made,
            remembered.read(remembered.path_of(described)),
            Reference.parse(image),
            registry.Settings(ca_bundle=ca_bundle),
            deep=deep,
            on_progress=bar,
        )
    if as_json:
        output.result(verdict.as_json())
    else:
        for finding in verdict.findings:
            click.echo(finding)
    verdict.require()
    log.info("%s (%s) is what the lock of %s says.", image, verdict.digest, made.name)
    log.info("%s", verdict.compared)
