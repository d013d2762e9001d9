"""Custom nodes as the templates need them: their stages, their layers, and files for these."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from podkiln.config import nodes
from podkiln.lock.nodes import file_of
from podkiln.plan.node_layers import INPUT
from podkiln.render.context_file import File

_CODE = "/opt/node-code"

if TYPE_CHECKING:
    from podkiln.config.nodes import NodeEntry
    from podkiln.plan.node_layers import PlannedNode
    from podkiln.plan.plan import Plan


def facts(plan: Plan) -> list[dict[str, Any]]:
    """Return what the templates say of each node, in the order of their layers."""
    return [facts_of(each) for each in plan.nodes]


def facts_of(planned: PlannedNode) -> dict[str, Any]:
    """Return what they say of one."""
    entry = planned.entry
    parts = [*_submodules(entry), *_paths(entry), *_code(planned)]
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
        "patched": bool(entry.node.patches) or any(part.get("patches") for part in parts),
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
            "words": f"submodule {name} {shlex.quote(each.path)}",
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
            "words": f"path {each.name} {entry.id}-{each.name} {shlex.quote(each.folder or '.')}",
        }
        for each in entry.node.paths
    ]


def _code(planned: PlannedNode) -> list[dict[str, str]]:
    entry = planned.entry
    return [
        {
            "input": f"{INPUT}{entry.id}-{each.name}",
            "repo": each.repo,
            "commit": each.commit,
            "mount": each.name,
            "words": f"code {each.name} {code_folder(entry.id, each.name)} "
            + ("/build/apply_patches.py" if each.patches else "-"),
            "patches": f"build/patches/{entry.id}-{each.name}" if each.patches else "",
        }
        for each in entry.node.code
        if planned.includes(each)
    ]


def code_folder(node: str, name: str) -> str:
    """Return where the code lies in an image that a node imports."""
    return f"{_CODE}/{node}-{name}"


def files(plan: Plan) -> dict[str, File]:
    """Return the files that the steps of nodes need: requirements, and patches in their order."""
    made: dict[str, File] = {}
    texts = plan.lock.nodes.requirements() if plan.lock.nodes else {}
    for each in plan.nodes:
        if each.brings_packages:
            made[f"build/{file_of(each.id)}"] = File(texts[each.id].encode(), copied=True)
        for number, content in enumerate(each.entry.patches(), start=1):
            made[f"build/patches/{each.id}/{number:02}.patch"] = File(content, copied=True)
        for at, code in enumerate(each.entry.node.code):
            for number, content in enumerate(each.entry.code_patches(at), start=1):
                made[f"build/patches/{each.id}-{code.name}/{number:02}.patch"] = File(content, copied=True)
    return made


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables that nodes in the image ask for, as they are for the import test."""
    included = [each for each in plan.nodes if each.included]
    found = nodes.environment(
        {each.id: each.entry for each in included}, plan.described.spec.runtime.workspace
    )
    for each in included:
        for code in each.entry.node.code:
            if each.includes(code):
                found[code.variable] = code_folder(each.id, code.name)
    return found


def as_json(planned: PlannedNode) -> dict[str, Any]:
    """Return a node as scripts/pod/ reads it: what is fetched at the start is described to the last byte."""
    entry, node = planned.entry, planned.entry.node
    return {
        "id": planned.id,
        "title": node.title or planned.id,
        "folder": entry.folder,
        "repo": node.repo,
        "commit": node.commit,
        "tree": planned.locked.tree if planned.locked else node.tree,
        "included": planned.included,
        "models": list(node.models),
        "environment": dict(sorted(node.environment.items())),
        "submodules": []
        if planned.included
        else [
            {"path": each.path, "repo": each.repo, "commit": each.commit, "tree": each.tree}
            for each in node.submodules
        ],
        "patches": [] if planned.included else [each.decode() for each in entry.patches()],
        "code": [_code_json(planned, at) for at in range(len(node.code))],
    }


def _code_json(planned: PlannedNode, at: int) -> dict[str, Any]:
    code = planned.entry.node.code[at]
    included = planned.includes(code)
    return {
        "name": code.name,
        "repo": code.repo,
        "commit": code.commit,
        "tree": code.tree,
        "variable": code.variable,
        "folder": code_folder(planned.id, code.name) if included else None,
        "patches": [] if included else [each.decode() for each in planned.entry.code_patches(at)],
    }
