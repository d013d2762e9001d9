"""All that may be wrong with a pod, gathered from the checks: of the decision, the volume, the network."""

from __future__ import annotations

from pathlib import Path

from pod.checks import model_needs
from pod.util import files, serving
from pod.util.finding import NOTE, WARNING, Finding, worst_first
from pod.volume.run_files import FETCHED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

NODES, WORKER = "nodes", "worker"


def offline(record: Mapping[str, Any], environ: Mapping[str, str]) -> list[Finding]:
    """Return all that can be found out without a network: what --explain shows. Raises PodError."""
    offered = offers(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln"))
    return worst_first([*known(record), *local(record, offered, environ)])


def known(record: Mapping[str, Any]) -> list[Finding]:
    """Return what `decide` found, from its entry in decision.json."""
    return [Finding.from_json(each) for each in record["findings"]]


def local(
    record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], environ: Mapping[str, str]
) -> list[Finding]:
    """Return what the volume and the RAM say. Raises PodError."""
    from pod.flags import rules  # noqa: PLC0415 - `decide` has loaded it, except at boot

    rule_set = rules.load(Path(environ.get("PODKILN_ROOT") or "/opt/podkiln") / "flags.json")
    volume = record["volume"]
    others = (environ.get("PODKILN_VOLUME") or "/runpod-volume", volume["root"], volume["workspace"])
    roots = [
        environ.get("PODKILN_BAKED") or "/opt/models",
        *(f"{other}/models" for other in others),
        *volume["models"],
    ]
    found = [
        *(Finding(WARNING, "volume", says) for says in volume["problems"]),
        *nodes(record, environ),
        *worker(record, environ),
        *model_needs.memory(record, models, rule_set.reaches),
    ]
    return [*found, *model_needs.room(record, models, roots)] if volume["responsive"] else found


def nodes(record: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield which custom nodes of the image are left out, and what became of those that were fetched."""
    for each in record["nodes"]:
        if not each["loaded"] and not each["own"]:
            yield Finding(NOTE, NODES, f"custom node {each['id']} is not loaded: {each['why']}")
    told = files.recall(Path(environ.get("PODKILN_RUN") or "/run/podkiln") / FETCHED)
    for each in told.get("nodes", ()):
        says = f"custom node {each['node']} {each['message']}"
        yield Finding(NOTE if each["good"] else WARNING, NODES, says)


def worker(record: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is wrong with the process that takes jobs, where the image has one."""
    if not record.get("serve") or record["serve"] == serving.DIFFUSERS:
        return
    told = files.recall(Path(environ.get("PODKILN_RUN") or "/run/podkiln") / "boot.json").get("worker")
    if told is None:
        yield Finding(NOTE, WORKER, "no worker takes jobs in this container")
    elif told["restarts"]:
        ends, last = len(told["restarts"]), told["restarts"][-1]["why"]
        yield Finding(WARNING, WORKER, f"the worker has ended {ends} times, the last time with {last}")


def online(
    record: Mapping[str, Any], models: Sequence[Mapping[str, Any]], environ: Mapping[str, str], root: Path
) -> list[Finding]:
    """Ask the network, where something is to come from it."""
    from pod.checks import network  # noqa: PLC0415 - explaining needs none of it
    from pod.net.hubs import Hubs  # noqa: PLC0415 - the same

    hubs = Hubs.from_environment(environ)
    hosts = {"huggingface": hubs.huggingface, "civitai": hubs.civitai}
    kinds = {source["kind"]: source.get("url", "") for source in model_needs.sources(record, models)}
    addresses = [hosts.get(kind, url) for kind, url in kinds.items()]
    if record.get("requested_files"):
        addresses += hosts.values()
    try:
        made: float | None = (root / "manifest.json").stat().st_mtime
    except OSError:
        made = None
    return network.examine([address for address in addresses if address], made)


def offers(root: Path) -> list[dict[str, Any]]:
    """Return what the image offers, as models.json has it. Raises PodError."""
    found: list[dict[str, Any]] = files.read_image_data(root / "models.json", lambda data: data["models"])
    return found
