"""A part of a pipeline that stands alone: a component's folder in diffusers' layout, or a GGUF file."""

from __future__ import annotations

from pod.util.dataclass import replace
from pod.util.printable import shown
from server.detection import base, other_files, weight_files
from server.detection.decision import GGUF, TRANSFORMER, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from server.detection.facts import Facts, File
    from server.detection.knowledge import Knowledge


def component(facts: Facts, known: Knowledge) -> Decision | None:
    """Decide on a folder that holds one component of a pipeline; None where it does not."""
    config = facts.document("config.json")
    name = config.get("_class_name")
    if not isinstance(name, str):
        return None
    seen = Decision(
        evidence=(f"config.json: _class_name {shown(name, 80)}",), component=name, layout="diffusers"
    )
    root = [file for file in facts.files if "/" not in file.path]
    checkpoint = next((each for each in known.checkpoints.values() if each.component == name), None)
    if checkpoint is None or checkpoint.loads != "transformer":
        return other_files.component(seen, facts, known, name)
    chosen = weight_files.weights(root, weight_files.preferred(weight_files.variants(root)))
    if chosen is None or chosen.problem:
        return other_files.unloaded(seen, facts, chosen, root)
    bases = facts.card.base_models if facts.card else ()
    meant = next((found for found in map(known.of_base, bases) if found), None) or checkpoint
    task = known.classes.task(meant.pipeline)
    decision = replace(
        seen,
        kind=TRANSFORMER,
        family=meant.family,
        checkpoint=meant.id,
        task=task,
        tasks=known.classes.tasks(meant.pipeline),
        pipeline=meant.pipeline,
        subfolder="transformer",
        variant=chosen.variant,
        files=(facts.file("config.json"), *chosen.files),
        reason=f"{facts.word} is the {name} alone of {meant.title}, for {task}.",
    )
    return base.completed(decision, facts, meant)


def gguf(facts: Facts, known: Knowledge, file: File) -> Decision:
    """Decide on a GGUF file: the transformer alone, quantised."""
    names = [facts.base_model] if facts.base_model else []
    names += facts.card.base_models if facts.card else ()
    meant = next((found for found in map(known.of_base, names) if found), None)
    seen = Decision(GGUF, files=(file,), evidence=(f"{file.path}: a GGUF file",), needs=("gguf",))
    if meant is None or meant.loads != "transformer":
        what = f"{shown(names[0], 80)} is not the base of a known family" if names else "no base is named"
        return seen.refused(
            "no-base",
            f"{file.path} is a GGUF file, a transformer without the rest of its pipeline or a language "
            f"model, and {what}.",
            "Set BASE_MODEL to the repository in diffusers' layout of the model that it was made from.",
        )
    task = known.classes.task(meant.pipeline)
    decision = replace(
        seen,
        family=meant.family,
        checkpoint=meant.id,
        task=task,
        tasks=known.classes.tasks(meant.pipeline),
        pipeline=meant.pipeline,
        component=meant.component,
        subfolder="transformer",
        layout="original",
        reason=f"{file.path} is the {meant.component} of {meant.title}, quantised, for {task}.",
    )
    if meant.halves:
        return decision.refused(
            "incomplete",
            f"{file.path} is {meant.title}, and both are needed.",
            f"Choose the repository {meant.base}.",
        )
    return base.completed(decision, facts, meant)
