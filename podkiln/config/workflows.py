"""All example workflows: whether they can run, and the editor forms that lie beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.config import catalog, editor_form, node_definitions, variant, workflow
from podkiln.config.workflow import API, FOLDER, Files
from podkiln.util.quoting import did_you_mean, shown

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.catalog import Entry


def release() -> str:
    """Return the ComfyUI release that the shipped variants are built from."""
    return variant.load("lazy").spec.runtime.comfyui.version


def problems(folder: Path = FOLDER) -> list[str]:
    """Return what is wrong with the workflows of a folder, a sentence each. Raises DescriptionError."""
    known, packages = catalog.load(), node_definitions.load()
    found = []
    for name in workflow.names(folder):
        if name not in known:
            meant = did_you_mean(name, known)
            found.append(f"{name}{API}: there is no model {shown(name)}. {meant}".rstrip())
            continue
        model = known[name].model
        found += workflow.problems(workflow.load(name, folder), packages, model, _files(known, name))
    return found


def editor_forms(folder: Path = FOLDER) -> dict[Path, str]:
    """Return each editor form by its path; `problems` must have found none. Raises DescriptionError."""
    known, packages = catalog.load(), node_definitions.load()
    forms = {}
    for name in workflow.names(folder):
        read = workflow.load(name, folder)
        loaders = set(workflow.model_files(read, packages, _files(known, name)))
        forms[folder / f"{name}.json"] = editor_form.text(read, packages, known[name], loaders)
    return forms


def stale(folder: Path = FOLDER) -> list[Path]:
    """Return the editor forms that are not what is made now, or that no workflow stands beside."""
    forms = editor_forms(folder)
    there = {path for path in folder.glob("*.json") if not path.name.endswith(API)}
    return sorted(
        path
        for path in there | forms.keys()
        if path not in forms or not path.is_file() or path.read_text(encoding="utf-8") != forms[path]
    )


def _files(known: dict[str, Entry], name: str) -> Files:
    """Return the files of a model and of the models that its example is made with."""
    return Files.of(*(known[each].model for each in (name, *known[name].model.example_with) if each in known))
