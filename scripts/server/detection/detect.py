"""The decision: what a model is, and how it is served, or why not. Pure: facts in, decision out.

The order: a file that was named; model_index.json; a modular pipeline; a folder with one component or with a
model of transformers; one .safetensors file; GGUF; and what is left, which is refused by what it is.
"""

from __future__ import annotations

import re

from pod.util.article import an
from pod.util.dataclass import dataclass, replace
from server.detection import civitai, memory, other_files, part, pipeline_folder, single_file
from server.detection.decision import GATED, PIPELINE, Decision
from server.detection.pipeline_folder import INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from server.detection.facts import Facts, File
    from server.detection.knowledge import Knowledge

_SAFE = (".safetensors", ".sft")
_LARGE = 1 << 30
"""Bytes from which on a file may be a whole model, beside small ones that are parts of one."""
_LISTED = 12
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")


@dataclass(frozen=True)
class Wanted:
    """What is still to be read: JSON files, and heads of .safetensors files, by path."""

    documents: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.documents or self.headers)


def wanted(facts: Facts) -> Wanted:
    """Return what `detect` would like to know beside these facts; what was tried in vain is asked for again.

    First the JSON files, and when they are there the heads that they lead to.
    """
    if facts.chosen:
        file = facts.chosen
        beside = [path for path in ("adapter_config.json",) if facts.has(path)]
        return Wanted(tuple(beside), (file,) if file.endswith(_SAFE) else ())
    if facts.has(INDEX):
        named = pipeline_folder.components(facts.document(INDEX))
        parts = [each.name for each in named if each.weighty]
        configs = [f"{name}/config.json" for name in parts if facts.has(f"{name}/config.json")]
        heads = pipeline_folder.heads(facts, named)
        if any(not facts.has(f"{name}/config.json") for name in parts) and facts.has("config.json"):
            configs.append("config.json")
        return Wanted((INDEX, *configs), tuple(heads))
    roots = ("config.json", "adapter_config.json", "modular_model_index.json")
    one = _one(facts)[0] or part.unet(facts)
    return Wanted(tuple(path for path in roots if facts.has(path)), (one.path,) if one else ())


def detect(facts: Facts, known: Knowledge) -> Decision:
    """Return the decision on a model. Never raises for any facts: what is odd is refused."""
    if facts.civitai and (refusal := civitai.refused(facts, known)):
        return refusal
    if facts.gated and not facts.token:
        decided = _detect(facts, known) if facts.files else Decision()
        return decided.refused(
            GATED,
            f"{facts.word} is gated, and no token is set, so none of its files can be fetched.",
            f"Accept its licence at https://huggingface.co/{facts.repository}, and set HF_TOKEN to a token "
            "of that account.",
        )
    return _detect(facts, known)


def _detect(facts: Facts, known: Knowledge) -> Decision:
    if not [file for file in facts.files if not file.name.startswith(".")]:
        return Decision().refused(
            "empty", f"{facts.word} has no files.", "Choose another model, or another revision of it."
        )
    if facts.chosen and facts.has(facts.chosen):
        return _file(facts, known, facts.file(facts.chosen))
    if facts.chosen:
        return Decision().refused(
            "no-model", f"{facts.word} names {facts.chosen}, which is not there.", "Correct the file's path."
        )
    if facts.has(INDEX):
        return pipeline_folder.decide(facts, known)
    if facts.has("modular_model_index.json"):
        name = facts.document("modular_model_index.json").get("_class_name")
        return pipeline_folder.modular(facts, name if isinstance(name, str) else "")
    return _parts(facts, known)


def _parts(facts: Facts, known: Knowledge) -> Decision:
    """Decide on what has no index of a pipeline."""
    if facts.has("config.json") and (
        found := part.component(facts, known) or other_files.transformers_model(facts)
    ):
        return found
    one, others = _one(facts)
    if one:
        return _file(facts, known, one)
    if found := other_files.by_card(facts, known):
        return found
    if others:
        return _several(facts, known, others)
    ggufs = [file for file in facts.files if file.name.endswith(".gguf")]
    if ggufs:
        return part.gguf(facts, known, ggufs[0]) if len(ggufs) == 1 else _several(facts, known, ggufs)
    return other_files.decide(facts, known)


def _file(facts: Facts, known: Knowledge, file: File) -> Decision:
    """Decide on one file."""
    if file.name.endswith(_SAFE):
        if _SHARD.search(file.name):
            return Decision(files=(file,)).refused(
                "incomplete",
                f"{file.path} is one piece of several.",
                "Name the repository, which has them all.",
            )
        return single_file.decide(facts, known, file)
    if file.name.endswith(".gguf"):
        return part.gguf(facts, known, file)
    return other_files.one(known, file)


def _one(facts: Facts) -> tuple[File | None, list[File]]:
    """Return the .safetensors file that is meant, or, where none is to be preferred, those there are.

    One alone, or the only one of a size that whole models have. Pieces count where their index is missing.
    """
    files = [file for file in facts.files if file.name.endswith(_SAFE) and not file.name.startswith(".")]
    root = [file for file in files if "/" not in file.path]
    files = root or files
    if len(files) == 1:
        return files[0], files
    large = [file for file in files if file.size is not None and file.size >= _LARGE]
    known = all(file.size is not None for file in files)
    return (large[0], files) if known and len(large) == 1 else (None, files)


def _several(facts: Facts, known: Knowledge, files: Sequence[File]) -> Decision:
    names = [file.path for file in files[:_LISTED]]
    more = f" and {len(files) - len(names)} more" if len(files) > len(names) else ""
    if all(_SHARD.search(file.name) for file in files):
        return Decision(files=tuple(files)).refused(
            "incomplete",
            f"{facts.word} is in {len(files)} pieces, and has neither model_index.json nor a configuration "
            "that says of what.",
            "Choose the model's repository in diffusers' layout.",
        )
    listed = [file for file in facts.files if file.folder and file.name == INDEX]
    if listed:
        folders = ", ".join(file.folder for file in listed)
        return Decision(files=tuple(files)).refused(
            "several",
            f"{facts.word} has pipelines in the folders {folders}, and none of its own.",
            "Download the folder that is meant, and name it as a local folder.",
        )
    if found := _parts_in_folders(facts, files) or _all_called(facts, known, files):
        return found
    return Decision(files=tuple(files)).refused(
        "several",
        f"{facts.word} has {len(files)} files of the kind {files[0].name.rpartition('.')[2]}, and nothing "
        f"says which is meant: {', '.join(names)}{more}.",
        f"Name one: hf:{facts.repository or 'org/repo'}:{names[0]}."
        if facts.repository
        else "Name one of them.",
    )


def _parts_in_folders(facts: Facts, files: Sequence[File]) -> Decision | None:
    """Refuse the parts of one model, each in a folder with its configuration; None for what is not so."""
    folders = list(dict.fromkeys(file.folder for file in files))
    if len(folders) < 2 or not all(each and facts.has(f"{each}/config.json") for each in folders):  # noqa: PLR2004
        return None
    return Decision(files=tuple(files)).refused(
        "incomplete",
        f"{facts.word} is in parts, in the folders {', '.join(folders[:_LISTED])}, and has no "
        "model_index.json that says what pipeline they make: the layout is its makers' own.",
        "Choose the model's repository in diffusers' layout.",
    )


def _all_called(facts: Facts, known: Knowledge, files: Sequence[File]) -> Decision | None:
    """Refuse files that are all called alike, encoders beside them apart; None where they are not."""
    kinds = [other_files.named(known, file) for file in files if "encoder" not in file.folder]
    if not kinds or kinds[0] is None or any(each != kinds[0] for each in kinds):
        return None
    what, row = kinds[0]
    return Decision(files=tuple(files)).refused(
        row["code"],
        f"{facts.word} has {len(kinds)} files, each by its name {what}, which {row['says']}.",
        row["instead"],
    )


def with_base_files(decision: Decision, facts: Facts, base: Facts, known: Knowledge) -> Decision:
    """Return a decision on a part of a pipeline with the sizes of its base, or refused as its base is.

    Args:
        decision: On what needs a base.
        facts: Those that it was made from.
        base: Facts of the base.
        known: What is known beforehand.
    """
    on = detect(base, known)
    if on.refusal:
        return decision.refused(
            "base", f"Its base cannot be served: {on.refusal.sentence}", on.refusal.instead
        )
    another = {decision.family, on.family} <= known.families.keys() and decision.family != on.family
    if on.kind != PIPELINE or another:
        what = f"{an(on.pipeline)}, of another family" if another else "no pipeline in diffusers' layout"
        return decision.refused(
            "base",
            f"Its base {base.word} is {what}.",
            "Set BASE_MODEL to a repository in diffusers' layout of the model that it was made for.",
        )
    taken = [file for file in on.files if file.folder != decision.subfolder or not file.name.endswith(_SAFE)]
    shares = []
    for name in dict.fromkeys(
        file.folder for file in taken if file.folder and file.folder != decision.subfolder
    ):
        weights = [file for file in on.files if file.folder == name and file.name.endswith(_SAFE)]
        shares += [memory.share(name, weights, base)] if weights else []
    if decision.subfolder:
        own = [file for file in decision.files if file.name.endswith((*_SAFE, ".gguf"))]
        one = (
            memory.shares_of_checkpoint(own[0], facts)[0]
            if decision.layout == "original" and facts.headers
            else None
        )
        shares.append(one or memory.share(decision.subfolder, own, facts))
    return replace(
        decision,
        pipeline=decision.pipeline or on.pipeline,
        task=decision.task or on.task,
        tasks=decision.tasks or on.tasks,
        family=decision.family or on.family,
        missing=(),  # its files were read
        base_files=tuple(taken),
        memory=memory.estimate(shares, decision.task or on.task),
    )
