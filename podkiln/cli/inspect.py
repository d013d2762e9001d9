"""`inspect`: what a model is, and whether and how the server of one model can serve it."""

from __future__ import annotations

import logging
import os
import threading
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import click

from pod.net.http import RefusedError
from pod.resolve.civitai import Terms
from pod.resolve.hub_client import HubClient
from podkiln.cli.options import json_option
from podkiln.config import model_types
from podkiln.errors import PlanRefusedError, SourceError, UsageError
from podkiln.lock import family_bases
from podkiln.options import NetworkOptions, apply, option
from podkiln.util import console
from podkiln.util.console import GB
from podkiln.weights.source import SourceClient
from server.collection import reference
from server.collection.collect import Collector
from server.detection.knowledge import Knowledge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from server.collection.collect import Found
    from server.collection.reference import Reference
    from server.detection.decision import Decision

log = logging.getLogger(__name__)
_SPARE: Final = 1.1
"""Of a disk for a model: what is written beside it while it is fetched and loaded."""


@click.command("inspect")
@click.argument("model", metavar="MODEL")
@option("--base-model", metavar="MODEL", help="BASE_MODEL: the repository that a LoRA or a part belongs on.")
@apply(NetworkOptions.options("ca_bundle"))
@json_option
def inspect_command(model: str, base_model: str | None, ca_bundle: Path | None, as_json: bool) -> None:
    """Say what a model is, what serves it, what it needs, and what it takes to fetch it; fetches no weights.

    MODEL is org/repo, hf:org/repo@revision:file.safetensors, civitai:MODEL@VERSION, an AIR, an address, or a
    file or folder here. Ends with 5 where it cannot be served.
    """
    meant = _meant(model, "MODEL")
    base = _meant(base_model, "--base-model") if base_model else None
    if base and (base.kind != "huggingface" or "path" in base.source):
        raise UsageError(f"--base-model: {base_model!r} is not a repository.", hint="Write org/repo.")
    client = SourceClient.from_environment(os.environ, ca_bundle)
    asker = HubClient(client.policy, threading.Event())
    terms = Terms.from_json(model_types.to_json()["civitai"])
    collector = Collector(
        client.hubs, asker, Knowledge(family_bases.knowledge(family_bases.pinned())), terms, log.info
    )
    try:
        found = collector.inspect(meant, str(base.source["repo"]) if base else "")
    except RefusedError as error:
        raise SourceError(f"{meant.word} {error}.") from None
    if as_json:
        console.result(_to_json(found))
    else:
        for line in lines(found):
            click.echo(line)
    if refusal := found.decision.refusal:
        raise PlanRefusedError(refusal.sentence, hint=refusal.instead)


def _meant(word: str, where: str) -> Reference:
    try:
        return reference.parse(word)
    except reference.WordError as error:
        raise UsageError(
            f"{where}: {word!r} {error}.", hint="`./build.py inspect --help` shows all forms."
        ) from None


def _to_json(found: Found) -> dict[str, Any]:
    decision = found.decision
    return {
        "schema": 1,
        "model": found.facts.word,
        "revision": found.revision or None,
        **decision.to_json(),
        "size": decision.size,
        "disk_gb": disk(decision),
        "remarks": list(found.remarks),
    }


def disk(decision: Decision) -> int | None:
    """Return the GB of a disk to ask for; None where a size is not known."""
    return None if decision.size is None else ceil(decision.size * _SPARE / GB)


def lines(found: Found) -> Iterator[str]:
    """Yield what is told of a model, a line each."""
    decision = found.decision
    if decision.served:
        yield decision.reason
        yield from _rows(found)
    for line in decision.evidence:
        yield f"  because   {line}"
    for line in found.remarks:
        yield f"  note      {line}"


def _rows(found: Found) -> Iterator[str]:
    decision = found.decision
    yield f"  class     {decision.pipeline or 'that of its base'}"
    yield f"  task      {decision.task or 'that of its base'}"
    more = [task for task, name in decision.tasks if name != decision.pipeline]
    if more:
        yield f"  also      {', '.join(more)}"
    if found.revision:
        yield f"  revision  {found.revision}"
    if decision.base:
        yield f"  base      {decision.base.repository} ({decision.base.why})"
    for line in decision.missing:
        yield f"  missing   {line}"
    if decision.needs:
        yield f"  packages  {', '.join(decision.needs)}"
    for title, files in (("files", decision.files), ("of base", decision.base_files)):
        sizes = [file.size for file in files]
        if files:
            total = console.size(sum(size or 0 for size in sizes), lacks=None in sizes)
            yield f"  {title:9} {len(files)}, {total}"
    asked = disk(decision)
    yield f"  disk      {asked if asked is not None else '?'} GB"
    for each in decision.memory:
        vram, ram = console.size(each.vram), console.size(each.ram)
        yield f"  memory    {each.mode}: {vram} VRAM, {ram} RAM (estimated)"
