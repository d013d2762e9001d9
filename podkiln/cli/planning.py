"""`plan`: what a build would hold and move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from podkiln import job, output, pulls, variant
from podkiln.bake import Environment
from podkiln.cli.options import (
    EXISTING_FILE,
    NEARBY,
    SUBSTITUTES,
    apply,
    json_option,
    names_of,
    variant_option,
)
from podkiln.job import Request

if TYPE_CHECKING:
    from podkiln.plan import Plan


@click.command("plan")
@variant_option
@click.option("--registry", metavar="HOST/NS", help="The registry that a push would go to.")
@apply(NEARBY)
@click.option("--ca-bundle", type=EXISTING_FILE, help="PEM file of a corporate CA.")
@apply(SUBSTITUTES)
@click.option("--accept-licence", multiple=True, metavar="MODEL", help="Push though its licence asks.")
@click.option("--no-weights", is_flag=True, help="Bake no weights; they are fetched at start instead.")
@json_option
def plan_command(as_json: bool, **options: Any) -> None:
    """Show layers, bytes, container disk and refusals; move nothing."""
    request = Request(
        variants=names_of(options["variant"]),
        registry=options["registry"],
        push=options["registry"] is not None,
        base=options["base"],
        sources=options["source"],
        allow_substituted=options["allow_substituted"],
        accepted=options["accept_licence"],
        no_weights=options["no_weights"],
        mount_from=options["mount_from"],
        copy_from=options["copy_from"],
        dry_run=True,
        environment=Environment(ca_bundle=options["ca_bundle"]),
    )
    made = [job.make_plan(variant.load(name), request) for name in request.variants]
    plans = [job.foresee(each, request) for each in made]
    if as_json:
        found = [
            {**each.as_json(), "pulls": [pull.as_json() for pull in pulls.usual(each)]} for each in plans
        ]
        output.result(found[0] if len(found) == 1 else {"schema": 1, "plans": found})
    else:
        for each in plans:
            show(each)
    for each in plans:
        each.require()


def show(made: Plan) -> None:
    """Print a plan for people."""
    spec = made.described.spec
    click.echo(f"{made.name}: {spec.title}")
    for number, layer in enumerate(made.layers, start=1):
        size = output.size(layer.size) if layer.size else "known after the build"
        click.echo(f"  {number:3}  {layer.what}  ({size})")
    click.echo(f"  weights baked: {output.size(made.weight_bytes)}{_moved(made)}")
    click.echo(f"  fetched at the first start by default: {output.size(made.fetched_at_start)}")
    show_pulls(made)
    click.echo(f"  container disk of a pod without a volume: {made.container_disk_gb} GB")
    for each in made.substituted:
        click.echo(f"  substituted: {each.name} is {each.actual}, the lock names {each.locked}")
    for note in made.notes:
        click.echo(f"  note: {note}")
    for refusal in made.refusals:
        click.echo(f"  refused: {refusal}")


def show_pulls(made: Plan) -> None:
    """Print what hosts pull again after the usual changes, for both places where weights can lie."""
    found = {(each.change, each.order, each.storage): each for each in pulls.usual(made)}
    if not found:
        return
    click.echo("  pulled again by a host that has the image: old weights + layers of the runtime")
    columns = [(order, storage) for order in pulls.ORDERS for storage in pulls.STORAGES]
    heads = [f"{order}, {storage}" for order, storage in columns]
    click.echo(f"    {'weights lie':18}" + "".join(f"{head:>20}" for head in heads))
    for change in dict.fromkeys(change for change, _, _ in found):
        cells = [found[change, order, storage] for order, storage in columns]
        shown = [f"{output.size(each.weight_bytes)} + {len(each.runtime)}" for each in cells]
        click.echo(f"    {change:18}" + "".join(f"{cell:>20}" for cell in shown))


def _moved(made: Plan) -> str:
    """Say what of the weights has to move, where a registry was asked."""
    if made.there is None or not made.bundles:
        return ""
    return f" ({output.size(made.fetch_bytes)} to fetch, {output.size(made.upload_bytes)} to send)"
