"""`plan`: what a build would hold and move."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import click

from podkiln.cli.options import json_option, names_of, variant_option
from podkiln.options import (
    BuildRequest,
    ImageOptions,
    NetworkOptions,
    RuntimeOptions,
    SubstituteOptions,
    TransferOptions,
    WeightOptions,
    apply,
)
from podkiln.pipeline import planning
from podkiln.pipeline.publish import registry_options
from podkiln.plan import ci_runners, cuda, update_cost
from podkiln.plan.destination import OPTION
from podkiln.plan.plan import MAX_LAYERS
from podkiln.util import console

if TYPE_CHECKING:
    from podkiln.plan.image_layers import Layer
    from podkiln.plan.plan import Plan

_NEARBY: Final = {"existing": "there already", "mounted": "mounted", "copied": "copied"}


@click.command("plan")
@variant_option
@apply(RuntimeOptions.options())
@apply(ImageOptions.options("registry"))
@apply(TransferOptions.options("mount_from", "copy_from", spool="Weights would be written to disk first."))
@apply(TransferOptions.options("rate"))
@apply(NetworkOptions.options(ca_bundle="PEM file of a corporate CA."))
@apply(SubstituteOptions.options())
@apply(WeightOptions.options("accept_licence", "no_weights"))
@json_option
def plan_command(variant: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show layers, bytes, container disk and refusals; move nothing.

    Where a registry is known, for a push to it; else for an image on this disk.
    """
    request = BuildRequest.of(names_of(variant), os.environ, push=None, dry_run=True, **options)
    settings = registry_options(request)
    plans = [planning.with_registry_state(each, settings) for each in planning.decide(request)]
    if as_json:
        found = [_as_json(each) for each in plans]
        console.result(found[0] if len(found) == 1 else {"schema": 2, "plans": found})
    else:
        for each in plans:
            show(each)
    for each in plans:
        each.require()


def _as_json(made: Plan) -> dict[str, Any]:
    return {
        **made.as_json(),
        "runners": [each.as_json() for each in ci_runners.check_runners(made)],
        "pulls": [each.as_json() for each in update_cost.usual(made)],
    }


def show(made: Plan) -> None:
    """Print a plan for people."""
    spec = made.described.spec
    click.echo(f"{made.name}: {spec.title}")
    where = made.destination
    if where and where.source != OPTION:
        click.echo(f"  registry: {where.registry} ({where.source})")
    click.echo(f"  {cuda.sentence(made.described, made.lock)}")
    for number, layer in enumerate(made.layers, start=1):
        size = console.size(layer.size) if layer.size else _foreseen(layer)
        there = f", {_NEARBY[nearby]}" if (nearby := made.nearby(layer.digest)) else ""
        click.echo(f"  {number:3}  {layer.what}  ({size}{there})")
    click.echo(f"  {len(made.layers)} of at most {MAX_LAYERS} layers")
    show_weights(made)
    if made.fit:
        click.echo(f"  {made.fit}")
    fetched = console.size(made.fetched_at_start, lacks=bool(made.unknown_sizes))
    click.echo(f"  fetched at the first start by default: {fetched}")
    show_pulls(made)
    show_disk(made)
    for verdict in ci_runners.check_runners(made):
        click.echo(f"  {verdict}")
    for each in made.substituted:
        click.echo(f"  substituted: {each.difference}")
    for note in made.notes:
        click.echo(f"  note: {note}")
    for instead, refusals in groupby(made.refusals, key=lambda each: each.instead):
        for refusal in refusals:
            click.echo(f"  refused: {refusal.what}")
        for sentence in instead:
            click.echo(f"    {sentence}")


def _foreseen(layer: Layer) -> str:
    """Say what is known before the build of the size of a layer of the runtime."""
    return f"about {console.size(layer.about)}" if layer.about else "known after the build"


def show_disk(made: Plan) -> None:
    """Print what a pod needs, and what is not known of that."""
    more = "more than " if made.unknown_sizes else ""
    click.echo(f"  container disk of a pod without a volume: {more}{made.container_disk_gb} GB")
    for each in made.unknown_sizes:
        click.echo(f"    the size of {each} is not known, and what is fetched and the disk lack it")


def show_weights(made: Plan) -> None:
    """Print what is baked, the biggest file of it, and the terms that each model comes under."""
    click.echo(f"  weights baked: {console.size(made.weight_bytes)}{_moved(made)}")
    if made.largest_file:
        biggest = made.largest_file
        click.echo(f"    biggest file: {biggest.model}: {biggest.destination} ({console.size(biggest.size)})")
    width = max((len(each.offer.id) for each in made.terms), default=0)
    for each in made.terms:
        click.echo(f"    {each.offer.id:{width}}  {each}")


def show_pulls(made: Plan) -> None:
    """Print what hosts pull again after the usual changes, for both places where weights can lie."""
    found = {(each.change, each.order, each.storage): each for each in update_cost.usual(made)}
    if not found:
        return
    click.echo("  pulled again by a host that has the image: old weights + layers of the runtime")
    columns = [(order, storage) for order in update_cost.ORDERS for storage in update_cost.STORAGES]
    heads = [f"{order}, {storage}" for order, storage in columns]
    click.echo(f"    {'weights lie':18}" + "".join(f"{head:>20}" for head in heads))
    for change in dict.fromkeys(change for change, _, _ in found):
        cells = [found[change, order, storage] for order, storage in columns]
        shown = [f"{console.size(each.weight_bytes)} + {len(each.runtime)}" for each in cells]
        click.echo(f"    {change:18}" + "".join(f"{cell:>20}" for cell in shown))


def _moved(made: Plan) -> str:
    """Say what of the weights has to move, where that was found out."""
    if made.there is None or not made.bundles:
        return ""
    if made.host is None:
        return f" ({console.size(made.fetch_bytes)} to fetch)"
    return f" ({console.size(made.fetch_bytes)} to fetch, {console.size(made.upload_bytes)} to send)"
