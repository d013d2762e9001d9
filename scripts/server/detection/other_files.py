"""Refusals: what a model is that is no pipeline, and no part of one that can be served."""

from __future__ import annotations

import re

from pod.util.article import an
from pod.util.pickles import is_pickle
from pod.util.printable import shown
from server.detection.decision import Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from server.detection.facts import Facts, File
    from server.detection.knowledge import Knowledge
    from server.detection.weight_files import Weights

_LISTED = 12
_MADE = frozenset({"image", "video", "audio", "3d", "any"})
_VAGUE = frozenset({"other", "unconditional-image-generation"})
"""Tasks of cards that end in none of those made here, and yet say nothing against a pipeline."""


def one(known: Knowledge, file: File) -> Decision:
    """Refuse one file by what its name says."""
    seen = Decision(files=(file,), evidence=(f"{file.path}: by its name",))
    row = _ending(known, file)
    if is_pickle(file.name) and not row:
        kind = named(known, file)
        what = f" By its name it is {kind[0]}, which {kind[1]['says']}." if kind else ""
        instead = (
            "Choose a .safetensors file of the same model, or convert it on a machine that you can lose."
        )
        return seen.refused(
            "pickle",
            f"{file.path} is a pickle, whose loading can run code that lies in it.{what}",
            kind[1]["instead"] if kind else instead,
        )
    if row:
        return seen.refused(row["code"], f"{file.path} is {row['says']}.", row["instead"])
    return seen.refused(
        "no-model",
        f"{file.path} is not a file of a model.",
        "Name a repository, or a .safetensors file.",
    )


def _ending(known: Knowledge, file: File) -> Mapping[str, str] | None:
    """Return the refusal of a file of another program; None where its name does not end so."""
    rows = known.unservable["endings"].items()
    return next((row for ending, row in rows if file.name.lower().endswith(ending)), None)


def named(known: Knowledge, file: File) -> tuple[str, Mapping[str, str]] | None:
    """Return what kind of model a file is called, and the refusal of that; None where it says nothing."""
    for row in known.unservable["names"]:
        if re.fullmatch(row["name"], file.name):
            return known.types.kinds[row["kind"]].what, known.unservable["kinds"][row["kind"]]
    return None


def foreign(known: Knowledge, files: Iterable[File]) -> str:
    """Return what files of other programs are, to be read behind "is"; "" where there are none."""
    rows = (_ending(known, file) for file in files)
    return next((row["says"] for row in rows if row), "")


def by_card(facts: Facts, known: Knowledge) -> Decision | None:
    """Refuse what its card says to be of another program, or for what no pipeline does; None otherwise."""
    library, task = (facts.card.library, facts.card.task) if facts.card else ("", "")
    said = {"library_name": library, "pipeline_tag": task}
    seen = Decision(
        evidence=tuple(f"the card's {key} is {shown(word, 40)}" for key, word in said.items() if word)
    )
    for row in known.unservable["libraries"]:
        if re.fullmatch(row["name"], library.lower()):
            return seen.refused(row["code"], f"{facts.word} is {row['says']}.", row["instead"])
    if not task or task in _VAGUE or task.rpartition("-to-")[2] in _MADE:
        return None
    of = f" of the library {shown(library, 40)}" if library else ""
    return seen.refused(
        "other-library",
        f"{facts.word} is a model{of} for {shown(task, 40)}, and no pipeline of diffusers.",
        "Use it with that library, or choose a repository with a model_index.json."
        if library
        else "Choose a repository with a model_index.json.",
    )


def decide(facts: Facts, known: Knowledge) -> Decision:
    """Refuse a repository or folder in which nothing can be loaded, by the files there are."""
    files = [file for file in facts.files if not file.name.startswith(".")]
    if found := [file for file in files if is_pickle(file.name) and not _ending(known, file)]:
        return one(known, max(found, key=lambda file: file.size or 0))
    for ending in known.unservable["endings"]:
        if found := [file for file in files if file.name.lower().endswith(ending)]:
            return one(known, found[0])
    names = ", ".join(shown(file.path, 80) for file in files[:_LISTED])
    return Decision(files=tuple(files)).refused(
        "no-model",
        f"{facts.word} has no file of a model; it has {names}.",
        "Choose a repository with a model_index.json, or with one .safetensors file.",
    )


def transformers_model(facts: Facts) -> Decision | None:
    """Refuse a model of transformers; None for what config.json does not say to be one."""
    config = facts.document("config.json")
    kind, architectures = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str):
        return None
    name = architectures[0] if isinstance(architectures, list) and architectures else kind
    seen = Decision(evidence=(f"config.json: model_type {shown(kind, 40)}, {shown(name, 80)}",))
    task = facts.card.task if facts.card and facts.card.task else "another task"
    return seen.refused(
        "transformers",
        f"{facts.word} is {an(shown(name, 80))} of transformers, for {shown(task, 40)}, and no pipeline of "
        "diffusers.",
        "Language models are served by vLLM, SGLang or text-generation-inference, others by a program of "
        "your own; as a part of a pipeline it is loaded with that pipeline's repository.",
    )


def component(seen: Decision, facts: Facts, known: Knowledge, name: str) -> Decision:
    """Refuse a folder with a component that is no pipeline's whole denoiser."""
    for ending, row in known.unservable["components"].items():
        if name.startswith(ending) or name.endswith(ending):
            return seen.refused(row["code"], f"{facts.word} is {an(name)}, {row['says']}.", row["instead"])
    if name in known.classes.parts:
        return seen.refused(
            "needs-base",
            f"{facts.word} is {an(name)}, one component of a pipeline, and its family is not known here.",
            "Choose the repository of the whole pipeline.",
        )
    return seen.refused(
        "newer-diffusers",
        f"{facts.word} is {an(shown(name, 80))}, which diffusers {known.classes.version} does not have: it "
        "needs a newer diffusers, or code of its own.",
        "Choose another model.",
    )


def unloaded(seen: Decision, facts: Facts, chosen: Weights | None, root: Sequence[File]) -> Decision:
    """Refuse a component whose weights are not there, in pieces that lack one, or a pickle."""
    if chosen:
        return seen.refused("incomplete", f"{facts.word} {chosen.problem}.", "Choose another revision of it.")
    found = [file for file in root if is_pickle(file.name)]
    others = [file.path for file in root if file.name.endswith(".safetensors")]
    if others and not found:
        quantised = facts.card is not None and facts.card.relation == "quantized"
        kind = " is quantised, as its card says, and" if quantised else ""
        return seen.refused(
            "quantised" if quantised else "other-library",
            f"{facts.word}{kind} has its weights in {', '.join(others[:_LISTED])}, names under which "
            "diffusers looks for none: they are another program's.",
            f"Choose {facts.card.base_models[0]}, which its card names as the base."
            if facts.card and facts.card.base_models
            else "Choose the model's repository in diffusers' layout.",
        )
    what = (
        f"only as a pickle ({found[0].path}), which can run code"
        if found
        else "in no file that is loaded here"
    )
    return seen.refused(
        "pickle" if found else "incomplete",
        f"{facts.word} has its weights {what}.",
        "Choose a revision or a copy with .safetensors files.",
    )
