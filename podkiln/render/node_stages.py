"""Custom nodes as the templates need them: their stages, their layers, and files for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podkiln.config import nodes
from podkiln.lock.nodes import file_of
from podkiln.plan.node_layers import INPUT
from podkiln.render.context_file import File

if TYPE_CHECKING:
    from podkiln.config.nodes import NodeEntry
    from podkiln.plan.node_layers import PlannedNode
    from podkiln.plan.plan import Plan


def facts(plan: Plan) -> list[dict[str, Any]]:
    """Return what the templates say of each node, in the order of their layers."""
    return [_facts(each) for each in plan.nodes]


def _facts(planned: PlannedNode) -> dict[str, Any]:
    entry = planned.entry
    parts = [*_submodules(entry), *_paths(entry)]
    return {
        "id": planned.id,
        "title": entry.node.title or planned.id,
        "input": f"{INPUT}{planned.id}",
        "repo": entry.node.repo,
        "commit": entry.node.commit,
        "folder": entry.folder,
        "included": planned.included,
        "parts": parts,
        "patches": f"build/patches/{planned.id}" if entry.node.patches else "",
        "packages": file_of(planned.id) if planned.brings_packages else "",
    }


def _submodules(entry: NodeEntry) -> list[dict[str, str]]:
    names = entry.node.parts[: len(entry.node.submodules)]
    return [
        {
            "input": f"{INPUT}{entry.id}-{name}",
            "repo": each.repo,
            "commit": each.commit,
            "mount": name,
            "words": f"submodule {name} {each.path}",
        }
        for name, each in zip(names, entry.node.submodules, strict=True)
    ]


def _paths(entry: NodeEntry) -> list[dict[str, str]]:
    return [
        {
            "input": f"{INPUT}{entry.id}-{each.name}",
            "repo": each.repo,
            "commit": each.commit,
            "mount": each.name,
            "words": f"path {each.name} {entry.id}-{each.name} {each.folder or '.'}",
        }
        for each in entry.node.paths
    ]


def files(plan: Plan) -> dict[str, File]:
    """Return the files that the steps of nodes need: requirements, and patches in their order."""
    made: dict[str, File] = {}
    texts = plan.lock.nodes.requirements() if plan.lock.nodes else {}
    for each in plan.nodes:
        if each.brings_packages:
            made[f"build/{file_of(each.id)}"] = File(texts[each.id].encode(), copied=True)
        for number, content in enumerate(each.entry.patches(), start=1):
            made[f"build/patches/{each.id}/{number:02}.patch"] = File(content, copied=True)
    return made


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables of the image that nodes of it ask for."""
    entries = {each.id: each.entry for each in plan.nodes if each.included}
    return nodes.environment(entries, plan.described.spec.runtime.workspace)
