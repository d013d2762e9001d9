"""A part of a pipeline that stands alone: a component's folder in diffusers' layout, or a GGUF file."""

from __future__ import annotations

from pod.util.dataclass import replace
from pod.util.printable import shown
from server.detection import base, other_files, single_file, weight_files
from server.detection.decision import GGUF, TRANSFORMER, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from server.detection.facts import Facts, File
    from server.detection.knowledge import Checkpoint, Knowledge


_UNET = "unet"


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
    checkpoint = _kind(facts, known, name)
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
        subfolder=checkpoint.subfolder,
        variant=chosen.variant,
        files=(facts.file("config.json"), *chosen.files),
        reason=f"{facts.word} is the {name} alone of {meant.title}, for {task}.",
    )
    return base.completed(decision, facts, meant)


def _kind(facts: Facts, known: Knowledge, name: str) -> Checkpoint | None:
    """Return what has a component of this class; of UNets, which several families have, by its tensors."""
    found = [each for each in known.checkpoints.values() if each.component == name]
    if not any(each.subfolder == _UNET for each in found):
        return found[0] if found else None
    told = (single_file.matches(known, header, path) for path, header in facts.headers.items())
    return next((each for fits in told for each in fits if each in found), None)


def unet(facts: Facts) -> File | None:
    """Return the weights of a folder with a UNet, whose head tells whose it is; None for another folder."""
    if not str(facts.document("config.json").get("_class_name")).startswith("UNet"):
        return None
    root = [file for file in facts.files if not file.folder]
    chosen = weight_files.weights(root, weight_files.preferred(weight_files.variants(root)))
    return chosen.files[-1] if chosen else None


def gguf(facts: Facts, known: Knowledge, file: File) -> Decision:
    """Decide on a GGUF file: the transformer alone, quantised."""
    names = [facts.base_model] if facts.base_model else []
    names += facts.card.base_models if facts.card else ()
    meant = next((found for found in map(known.of_base, names) if found), None)
    seen = Decision(GGUF, files=(file,), evidence=(f"{file.path}: a GGUF file",), needs=("gguf",))
    if meant and meant.loads != "transformer":
        return seen.refused(
            "no-loader",
            f"{file.path} is a GGUF file made from {meant.title}, and such files are loaded of transformers "
            "alone.",
            f"Choose the model as safetensors, such as {meant.base}.",
        )
    if meant is None:
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
        subfolder=meant.subfolder,
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
