"""A repository or folder in diffusers' layout: model_index.json, and a folder for each component.

Layout: https://huggingface.co/docs/diffusers/using-diffusers/other-formats
"""

from __future__ import annotations

import re

from pod.util.article import an
from pod.util.dataclass import dataclass, replace
from pod.util.env import nearest
from pod.util.printable import shown
from server.detection import memory, other_files, weight_files
from server.detection.decision import PIPELINE, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from server.detection.facts import Facts, File
    from server.detection.knowledge import Knowledge

INDEX = "model_index.json"
_LIBRARIES = frozenset({"diffusers", "transformers"})
_WEIGHTLESS = re.compile(
    r".*(?:Tokenizer|TokenizerFast|Processor|ProcessorFast|FeatureExtractor|Scheduler|Guider|Guidance)"
)
_DENOISERS = ("transformer", "unet", "prior", "decoder", "transformer_2", "unet_2")
# What a class is still whole without, by its signature's default or its own check.
_OPTIONAL = frozenset({"safety_checker", "watermarker"})
_SCHEDULER = "scheduler_config.json"


@dataclass(frozen=True)
class Component:
    """An entry of model_index.json that is not null."""

    name: str
    library: str
    cls: str

    @property
    def weighty(self) -> bool:
        """Whether it has weights."""
        return not _WEIGHTLESS.fullmatch(self.cls)


def components(index: Mapping[str, Any]) -> list[Component]:
    """Return the components that model_index.json names."""
    return [
        Component(name, str(value[0]), str(value[1]))
        for name, value in index.items()
        if not name.startswith("_") and isinstance(value, list) and len(value) == 2 and None not in value  # noqa: PLR2004
    ]


def decide(facts: Facts, known: Knowledge) -> Decision:
    """Decide on what has a model_index.json."""
    index = facts.document(INDEX)
    name = index.get("_class_name")
    parts = components(index)
    if refusal := _class_refused(facts, known, name, index) or _parts_refused(facts, known, str(name), parts):
        return refusal
    name = str(name)
    task = known.classes.task(name)
    decision = Decision(
        PIPELINE,
        known.family_of(name),
        task=task,
        tasks=known.classes.tasks(name),
        pipeline=name,
        layout="diffusers",
        reason=f"{facts.word} is {an(name)} in diffusers' layout, for {task}.",
        evidence=(f"model_index.json: _class_name {name}", _listed(parts)),
    )
    if task in known.unservable["tasks"]:
        row = known.unservable["tasks"][task]
        return decision.refused(
            "no-route", f"{facts.word} is {an(name)}, which {row['says']}.", row["instead"]
        )
    return _with_files(decision, facts, known, parts)


def heads(facts: Facts, parts: Sequence[Component]) -> list[str]:
    """Return the first file of each component's weights: its head tells in how many bits they are stored."""
    folders = _folders(facts, parts)
    variant = _variant(folders)
    found = (weight_files.weights(folders[part.name], variant) for part in parts if part.weighty)
    return [
        next(file.path for file in each.files if file.name.endswith(".safetensors")) for each in found if each
    ]


def _folders(facts: Facts, parts: Sequence[Component]) -> dict[str, list[File]]:
    """Return the files of each component: of its folder, or, where it has none, of the top.

    From there diffusers loads what has no folder (pipeline_loading_utils.py, load_sub_model), as a model and
    its scheduler were laid before folders were. The configuration there has to be the component's own.
    """
    top = [file for file in facts.files if not file.folder and file.name != INDEX]
    config = facts.document("config.json").get("_class_name")
    found = {}
    for part in parts:
        there = [file for file in facts.files if file.folder == part.name]
        if not there and part.weighty and config == part.cls:
            there = [file for file in top if file.name != _SCHEDULER]
        elif not there and part.cls.endswith("Scheduler"):
            there = [file for file in top if file.name == _SCHEDULER]
        found[part.name] = there
    return found


def _variant(folders: Mapping[str, Sequence[File]]) -> str:
    """Return the precision to fetch: the best that the denoiser has."""
    main = next((name for name in _DENOISERS if folders.get(name)), "")
    return weight_files.preferred(weight_files.variants(folders.get(main, ())))


def _listed(parts: Sequence[Component]) -> str:
    return "components: " + ", ".join(f"{part.name} ({part.cls})" for part in parts)


def _class_refused(facts: Facts, known: Knowledge, name: Any, index: Mapping[str, Any]) -> Decision | None:
    """Refuse what is no class of diffusers' own that can be loaded."""
    seen = Decision(PIPELINE, evidence=(f"model_index.json: _class_name {shown(name)}",))
    if isinstance(name, list):
        return seen.refused(
            "custom-code",
            f"{facts.word} brings a pipeline of its own ({shown(name)}), whose code would have to be run.",
            "Choose a model whose pipeline is part of diffusers: no code from a repository is run here.",
        )
    if not isinstance(name, str):
        return Decision(PIPELINE).refused(
            "damaged",
            f"model_index.json of {facts.word} {'names no class' if index else 'cannot be read'}.",
            "Choose another revision of it.",
        )
    if name in known.classes.pipelines:
        return None
    if name in known.classes.modular:
        return modular(facts, name)
    if name in known.classes.dummies:
        needs = known.classes.dummies[name]
        return seen.refused(
            "needs-package",
            f"{facts.word} is {an(name)}, which needs {needs}, and images do not have that.",
            "Choose the same model in PyTorch's form, with .safetensors files.",
        )
    return _unknown_class(seen, facts, known, name)


def _unknown_class(seen: Decision, facts: Facts, known: Knowledge, name: str) -> Decision:
    """Refuse a class that diffusers does not have: another program's, or a later release's."""
    for start, row in known.unservable["pipelines"].items():
        if name.startswith(start):
            return seen.refused(row["code"], f"{facts.word} is {an(name)}, {row['says']}.", row["instead"])
    near = nearest(name, list(known.classes.pipelines))
    wrote = facts.document(INDEX).get("_diffusers_version")
    written = f" (it was written by {shown(wrote, 40)})" if isinstance(wrote, str) else ""
    return seen.refused(
        "newer-diffusers",
        f"{facts.word} is {an(shown(name, 80))}, which diffusers {known.classes.version} does not "
        f"have{written}: it needs a newer diffusers, or code of its own.",
        f"The nearest class there is {near}: choose a model of that." if near else "Choose another model.",
    )


def modular(facts: Facts, name: str) -> Decision:
    """Refuse a modular pipeline."""
    evidence = tuple(path for path in (INDEX, "modular_model_index.json") if facts.has(path))
    what = f", {an(name)}" if name else ""
    bases = facts.card.base_models if facts.card else ()
    instead = (
        f"Its card names {bases[0]}: try that." if bases else "Choose its version with a model_index.json."
    )
    return Decision(PIPELINE, evidence=evidence).refused(
        "modular",
        f"{facts.word} is a modular pipeline{what}: its blocks may bring code, and have no signature to make "
        "an API of.",
        instead,
    )


def _parts_refused(facts: Facts, known: Knowledge, name: str, parts: Sequence[Component]) -> Decision | None:
    """Refuse components whose code is not in diffusers or transformers."""
    seen = Decision(
        PIPELINE, pipeline=name, evidence=(f"model_index.json: _class_name {name}", _listed(parts))
    )
    for part in parts:
        if part.library not in _LIBRARIES | known.classes.packages:
            return seen.refused(
                "custom-code",
                f"The component {part.name} of {facts.word} is code of its own or of another library "
                f"({shown(part.library, 80)}), which is not run here.",
                "Choose a model whose components are classes of diffusers and transformers.",
            )
        if part.library == "diffusers" and not _known(known, part.cls):
            return seen.refused(
                "newer-diffusers",
                f"The component {part.name} of {facts.word} is {an(shown(part.cls, 80))}, which diffusers "
                f"{known.classes.version} does not have: it needs a newer diffusers.",
                "Choose an older revision of it, or another model.",
            )
    return None


def _known(known: Knowledge, name: str) -> bool:
    return name in known.classes.parts or name in known.classes.pipelines


def _with_files(decision: Decision, facts: Facts, known: Knowledge, parts: Sequence[Component]) -> Decision:
    """Choose the files; refuse where a component has no safe weights."""
    folders = _folders(facts, parts)
    variant = _variant(folders)
    files, omit, shares = [facts.file(INDEX)], [], []
    for part in parts:
        if not folders[part.name]:
            return _absent(decision, facts, part)
        chosen = weight_files.weights(folders[part.name], variant) if part.weighty else None
        if part.weighty and chosen is None:
            if part.name in _OPTIONAL:
                omit.append(part.name)
                continue
            return _unsafe(decision, facts, known, part, folders[part.name])
        if chosen and chosen.problem:
            return decision.refused(
                "incomplete",
                f"The component {part.name} of {facts.word} {chosen.problem}.",
                "Choose another revision of it.",
            )
        files += weight_files.beside(folders[part.name])
        if chosen:
            files += chosen.files
            shares.append(memory.share(part.name, chosen.files, facts))
    needs, unknown = _quantised(facts, known, parts)
    decision = replace(
        decision,
        variant=variant,
        files=tuple(files),
        omit=tuple(omit),
        needs=needs,
        memory=memory.estimate(shares, decision.task),
    )
    if unknown:
        return decision.refused(
            "quantised",
            f"{facts.word} is quantised by {unknown}, for which images have no package.",
            "Choose the model that it was made from, and QUANTIZE for fewer bits.",
        )
    return _with_evidence(decision)


def _with_evidence(decision: Decision) -> Decision:
    said = [
        f"weights: {decision.variant} files, half of what is there"
        if decision.variant
        else "weights: safetensors"
    ]
    said += [f"{name} has no safe weights and is left out" for name in decision.omit]
    return replace(decision, evidence=(*decision.evidence, *said))


def _quantised(facts: Facts, known: Knowledge, parts: Sequence[Component]) -> tuple[tuple[str, ...], str]:
    """Return the packages that quantised components need, and the method for which there is none."""
    needs = []
    for part in parts:
        config = facts.document(f"{part.name}/config.json").get("quantization_config")
        method = str(config.get("quant_method", "")) if isinstance(config, dict) else ""
        if method and method not in known.unservable["quantisers"]:
            return (), shown(method, 40)
        if method:
            needs.append(str(known.unservable["quantisers"][method]))
    return tuple(dict.fromkeys(needs)), ""


def _absent(decision: Decision, facts: Facts, part: Component) -> Decision:
    return decision.refused(
        "incomplete",
        f"model_index.json of {facts.word} names the component {part.name}, and there is no such folder.",
        "Choose another revision of it, or the repository that it was copied from.",
    )


def _unsafe(
    decision: Decision, facts: Facts, known: Knowledge, part: Component, files: Sequence[File]
) -> Decision:
    found = weight_files.pickles(files)
    foreign = other_files.foreign(known, files)
    what = (
        f"only as a pickle ({found[0].path}), which can run code"
        if found
        else f"in no form that is loaded here{f'; it is {foreign}' if foreign else ''}"
    )
    return decision.refused(
        "pickle" if found else "incomplete",
        f"The component {part.name} of {facts.word} has its weights {what}.",
        "Choose a revision or a copy with .safetensors files: the Hub's converter makes pull requests of "
        "them, which can be named as org/repo@refs/pr/NUMBER.",
    )
