"""Which of a variant's custom nodes lie in its image, and the inputs and layers that they make. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from podkiln.plan.image_layers import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from podkiln.config.node_parts import NodeCode
    from podkiln.config.nodes import NodeEntry
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.nodes import LockedNode, LockedNodes, LockedTree
    from podkiln.lock.schema import Lock

INPUT: Final = "node-"
"""How the stages of the Dockerfile begin that hold a node's source, and the names of --source."""


@dataclass(frozen=True)
class PlannedNode:
    """A node as one image has it.

    Attributes:
        entry: What is described.
        locked: What is locked; None: nothing is, and the plan is not for a build.
        accepted: Whether its licence was named with --accept-licence.
    """

    entry: NodeEntry
    locked: LockedNode | None
    accepted: bool

    @property
    def id(self) -> str:
        """Its id."""
        return self.entry.id

    @property
    def included(self) -> bool:
        """Whether its code lies in the image; what it needs of packages does in any case."""
        return self.accepted or not self.entry.node.asks

    def includes(self, code: NodeCode) -> bool:
        """Whether an entry of `code` lies in the image."""
        return self.included and (self.accepted or not code.asks)

    @property
    def brings_packages(self) -> bool:
        """Whether it has a layer of packages."""
        return bool(self.locked and self.locked.packages)

    def as_json(self) -> dict[str, Any]:
        """Return it for scripts."""
        node, licence = self.entry.node, self.entry.node.licence
        return {
            "node": self.id,
            "folder": self.entry.folder,
            "source": node.source,
            "commit": node.commit,
            "licence": licence.id if licence else None,
            "included": self.included,
            "models": list(node.models),
            "downloads": [{"what": each.what, "hosts": list(each.hosts)} for each in node.downloads],
        }


def of(
    described: LoadedVariant, locked: LockedNodes | None, accepted: Sequence[str]
) -> tuple[PlannedNode, ...]:
    """Return the nodes of a variant, in the order of their layers."""
    known: Mapping[str, LockedNode] = locked.nodes if locked else {}
    return tuple(
        PlannedNode(entry, known.get(name), name in accepted) for name, entry in described.nodes.items()
    )


def layers(nodes: Sequence[PlannedNode]) -> Iterator[Layer]:
    """Yield their layers: what a node needs that none before it has, and its own files."""
    for each in nodes:
        if each.locked and each.locked.packages:
            about = each.locked.packages.wheel_bytes
            yield Layer(f"packages of the node {each.id}", "node packages", each.id, about=about)
        if each.included:
            yield Layer(f"custom node {each.id}", "node", each.id)


def inputs(lock: Lock) -> dict[str, LockedTree | LockedNode]:
    """Return what is locked of the sources of nodes, by the names of their stages."""
    found: dict[str, LockedTree | LockedNode] = {}
    for name, node in (lock.nodes.nodes if lock.nodes else {}).items():
        found[f"{INPUT}{name}"] = node
        found |= {f"{INPUT}{name}-{part}": each for part, each in node.parts.items()}
    return found


def notes(nodes: Sequence[PlannedNode]) -> Iterator[str]:
    """Yield what is worth knowing of them: whose code is left out, and what they fetch by themselves."""
    for each in nodes:
        licence = each.entry.node.licence
        if licence and not each.included:
            terms = f"is under {licence.id}" if licence.id else "has no licence"
            yield (
                f"The node {each.id} {terms}, so its code is not in the image and is fetched at "
                "the start where a model needs it; "
                f"--accept-licence {each.id} builds it in."
            )
        for code in each.entry.node.code:
            if each.included and not each.includes(code):
                terms = f"is under {code.licence.id}" if code.licence.id else "has no licence"
                yield (
                    f"The code {code.name} of the node {each.id} {terms}, so it is not in the image and is "
                    f"fetched at the start; --accept-licence {each.id} builds it in."
                )
    for each in nodes:
        downloads = each.entry.node.downloads
        if downloads:
            hosts = ", ".join(dict.fromkeys(host for one in downloads for host in one.hosts))
            what = "; ".join(one.what.rstrip(".") for one in downloads)
            yield f"The node {each.id} fetches from {hosts} when it is used, and nothing hashes that: {what}."
