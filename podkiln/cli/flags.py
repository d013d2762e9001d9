"""`flags`: what start.sh would choose, and why."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from pod.errors import UNFIT
from pod.flags import model_selection, node_selection
from pod.util.finding import FATAL
from podkiln.cli.options import json_option, one_of
from podkiln.config import cards
from podkiln.config import variant as variants
from podkiln.errors import UsageError
from podkiln.options import BuildRequest, RuntimeOptions, apply, option
from podkiln.pipeline import planning
from podkiln.render import build_context, flags_json, image_metadata
from podkiln.util import console

if TYPE_CHECKING:
    from pod.flags.decision import Decision
    from podkiln.plan.plan import Plan


@click.command("flags")
@option(
    "--variant",
    multiple=True,
    metavar="V",
    help="Whose profile and common arguments to use; lazy's by default.",
)
@apply(RuntimeOptions.options())
@option("--gpu", metavar="NAME", help="A card by its name: 4090, L40S, H100; its VRAM is known.")
@option("--vram-mib", type=click.IntRange(0, 10_000_000), help="Of the card; 0 for none.")
@option(
    "--free-vram-mib",
    type=click.IntRange(0, 10_000_000),
    help="What nobody else holds of the card's; all of it by default.",
)
@option("--ram-mib", type=click.IntRange(1, 100_000_000), help="Of the pod, its limit counted.")
@option("--host-ram-mib", type=click.IntRange(1, 100_000_000), help="Of the machine, where it is more.")
@option("--tier", help="GPU_TIER.")
@option("--memory-mode", help="GPU_MEMORY_MODE.")
@option("--profile", help="FLAG_PROFILE: dynamic, conservative or no_xformers.")
@option("--models", help="MODELS, of the image that --variant names, or lazy's.")
@option("--nodes", help="NODES, the same.")
@option("--args", default="", may_be_empty=True, help="COMFYUI_ARGS.")
@json_option
def flags_command(
    variant: tuple[str, ...], cuda: str | None, gpu: str | None, as_json: bool, **figures: Any
) -> None:
    """Show the flags that a pod would choose. The same code and data decide in the image."""
    name = one_of(variant, "flags are chosen for one image", default="lazy")
    figures |= _card(gpu, figures["vram_mib"])
    _check_memory(figures["ram_mib"], figures["host_ram_mib"])
    _check_free(figures["vram_mib"], figures["free_vram_mib"])
    described = variants.load(name, cuda)
    if not described.spec.has_comfyui:
        raise UsageError(f"{described.name} has no ComfyUI, so no flags are chosen in its pods.")
    made = planning.make_plan(described, BuildRequest.of([name], cuda=cuda, no_weights=True))
    packages = made.lock.python_packages()
    data = build_context.flags_json(made)
    asked = variant or figures["models"] or figures["nodes"]
    known = _offered(made) | ({"packages": packages} if variant else {}) if asked else {}
    decision = flags_json.preview(data, **known, **figures)
    if as_json:
        console.result(decision.to_json())
    else:
        click.echo(shlex.join(decision.args))
        unsure = [] if variant else flags_json.lacking(data, decision, packages)
        unsure += flags_json.on_the_edge(data, decision, known, figures)
        for line in (*unsure, *decision.warnings, *decision.reasons):
            click.echo(f"  {line}", err=True)
    _refuse(decision)


def _refuse(decision: Decision) -> None:
    """Raise UsageError where start.sh would not start ComfyUI: what is shown before is what it would say."""
    for finding in decision.findings:
        if finding.level == FATAL:
            raise UsageError(
                f"ComfyUI cannot work there: {finding.message}.",
                hint=f"A pod would refuse to start, with exit code {UNFIT}; --args=--cpu does without a GPU.",
            )


def _card(name: str | None, vram_mib: int | None) -> dict[str, Any]:
    """Return the card that is meant, and its VRAM. Raises UsageError where none is said, or both ways."""
    if (name is None) == (vram_mib is None):
        raise UsageError(
            "--gpu and --vram-mib both say which card is meant."
            if name
            else "--gpu or --vram-mib is missing.",
            hint="Give one: --gpu 4090, or --vram-mib 24564 for any card, 0 for none.",
        )
    if name is None:
        return {}
    card = cards.find(name)
    return {"card": card, "vram_mib": card.vram_mib}


def _check_free(whole: int, free: int | None) -> None:
    """Refuse more free VRAM than there is."""
    if free is not None and free > whole:
        raise UsageError(f"--free-vram-mib: {free} MiB cannot be free on a card of {whole} MiB.")


def _offered(made: Plan) -> dict[str, Any]:
    """Return the models and nodes of an image as its pods read them."""
    return {
        "offers": model_selection.from_json(image_metadata.models(made)),
        "node_offers": node_selection.from_json(image_metadata.nodes(made)),
    }


def _check_memory(pod: int | None, host: int | None) -> None:
    """Refuse a machine that has less RAM than the pod on it, or of whose pod nothing is said."""
    if host is not None and pod is None:
        raise UsageError(
            "--host-ram-mib needs --ram-mib: it is the machine's RAM, where the pod may use less.",
            hint="For a pod without a limit, give --ram-mib alone.",
        )
    if host is not None and pod is not None and host < pod:
        raise UsageError(
            f"--ram-mib: a pod cannot have {pod} MiB on a machine of {host} MiB.",
            hint="--host-ram-mib is the larger of the two.",
        )
