"""Custom nodes as the templates need them: their stages, their layers, and files for these."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

from pod.util.git_objects import EXECUTABLE
from podkiln.config.node_names import WORKSPACE
from podkiln.lock.nodes import file_of
from podkiln.plan.node_layers import INPUT
from podkiln.render.context_file import File

_CODE, _VENVS, _OWN = "/opt/node-code", "/opt/node-venvs", "nodes"

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
        "own": f"{_OWN}/{planned.id}" if entry.node.source else "",
        "repo": entry.node.repo,
        "commit": entry.node.commit,
        "folder": entry.folder,
        "included": planned.included,
        "parts": parts,
        "patches": f"build/patches/{planned.id}" if entry.node.patches else "",
        "patched": bool(entry.node.patches) or any(part.get("patches") for part in parts),
        "packages": file_of(planned.id) if planned.brings_packages else "",
        "venv": _venv(planned),
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


def _venv(planned: PlannedNode) -> str:
    """Return where its own environment lies in an image; empty where it has none."""
    wanted = planned.entry.node.python.venv and planned.brings_packages
    return f"{_VENVS}/{planned.id}" if wanted else ""


def _variables(planned: PlannedNode) -> dict[str, str]:
    """Return the variables that a node asks for, and those of what the image has for it."""
    node, venv = planned.entry.node, _venv(planned)
    return {
        **node.environment,
        **({node.python.venv: f"{venv}/bin/python"} if node.python.venv and venv else {}),
    }


def code_folder(node: str, name: str) -> str:
    """Return where the code lies in an image that a node imports."""
    return f"{_CODE}/{node}-{name}"


def files(plan: Plan) -> dict[str, File]:
    """Return the files that the steps of nodes need: requirements, patches in their order, our own nodes."""
    made: dict[str, File] = {}
    texts = plan.lock.nodes.requirements() if plan.lock.nodes else {}
    for each in plan.nodes:
        if each.brings_packages:
            made[f"build/{file_of(each.id)}"] = File(texts[each.id].encode(), copied=True)
        for file in each.entry.own_files():
            made[f"{_OWN}/{each.id}/{os.fsdecode(file.path)}"] = File(
                b"".join(file.pieces()), executable=file.mode == EXECUTABLE, copied=True
            )
        for number, content in enumerate(each.entry.patches(), start=1):
            made[f"build/patches/{each.id}/{number:02}.patch"] = File(content, copied=True)
        for at, code in enumerate(each.entry.node.code):
            for number, content in enumerate(each.entry.code_patches(at), start=1):
                made[f"build/patches/{each.id}-{code.name}/{number:02}.patch"] = File(content, copied=True)
    return made


def environment(plan: Plan) -> dict[str, str]:
    """Return the variables that nodes in the image ask for, as they are for the import test."""
    included = [each for each in plan.nodes if each.included]
    workspace = plan.described.spec.runtime.workspace
    found: dict[str, str] = {}
    for each in included:
        found |= {name: text.replace(WORKSPACE, workspace) for name, text in _variables(each).items()}
        for code in each.entry.node.code:
            if each.includes(code):
                found[code.variable] = code_folder(each.id, code.name)
    return dict(sorted(found.items()))


def as_json(planned: PlannedNode) -> dict[str, Any]:
    """Return a node as scripts/pod/ reads it: what is fetched at the start is described to the last byte."""
    entry, node = planned.entry, planned.entry.node
    return {
        "id": planned.id,
        "title": node.title or planned.id,
        "folder": entry.folder,
        "repo": node.repo,
        "commit": node.commit,
        "tree": entry.own_tree or (planned.locked.tree if planned.locked else node.tree),
        "included": planned.included,
        "models": list(node.models),
        "environment": dict(sorted(_variables(planned).items())),
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
