"""`flags`: what start.sh would choose, and why."""

from __future__ import annotations

from typing import Any

import click

from podkiln import flags, job, output, render
from podkiln import variant as variants
from podkiln.cli.options import json_option
from podkiln.request import Request


@click.command("flags")
@click.option(
    "--variant", default="lazy", show_default=True, help="Whose profile and common arguments to use."
)
@click.option(
    "--vram-mib", type=click.IntRange(0, 10_000_000), required=True, help="Of the card; 0 for none."
)
@click.option("--ram-mib", type=click.IntRange(1, 100_000_000), help="Of the pod, its limit counted.")
@click.option("--host-ram-mib", type=click.IntRange(1, 100_000_000), help="Of the machine, where it is more.")
@click.option("--tier", help="GPU_TIER.")
@click.option("--memory-mode", help="GPU_MEMORY_MODE.")
@click.option("--profile", help="FLAG_PROFILE: dynamic or conservative.")
@click.option("--args", default="", help="COMFYUI_ARGS.")
@json_option
def flags_command(variant: str, as_json: bool, **figures: Any) -> None:
    """Show the flags that a pod would choose. The same code and data decide in the image."""
    described = variants.load(variant)
    made = job.make_plan(described, Request(variants=(variant,), no_weights=True))
    decision = flags.foretell(render.flags_json(made), **figures)
    if as_json:
        output.result({"schema": 1, **decision.to_json()})
        return
    click.echo(" ".join(decision.args))
    for line in (*decision.warnings, *decision.reasons):
        click.echo(f"  {line}", err=True)
