"""One .safetensors file: which family's, by the names and shapes of its tensors.

What no family's keys prove is unknown; diffusers itself would call it Stable Diffusion 1.
"""

from __future__ import annotations

import re

from pod.util.dataclass import replace
from pod.util.printable import shown
from server.detection import base, lora, memory
from server.detection.decision import CHECKPOINT, TRANSFORMER, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pod.resolve.safetensors_header import SafetensorsHeader
    from server.detection.facts import Facts, File
    from server.detection.knowledge import Checkpoint, Knowledge

_PREFIX = "model.diffusion_model."
_PIPELINE = "pipeline"
_END = 3
"""Parts of a name that show how a tensor is packed."""


def decide(facts: Facts, known: Knowledge, file: File) -> Decision:
    """Decide on a file whose head was read, or could not be."""
    header = facts.headers.get(file.path)
    if header is None:
        return Decision(files=(file,)).refused(
            "damaged",
            f"{file.path} is not a valid .safetensors file, or its head could not be read.",
            "Choose another file, or another revision of it.",
        )
    if refusal := _quantised(known, file, header):
        return refusal
    if lora.form(header):
        return lora.decide(facts, known, file)
    found = matches(known, header, path(facts, file))
    if len(found) > 1:
        titles = " and ".join(sorted({each.id for each in found}))
        return Decision(files=(file,)).refused(
            "ambiguous",
            f"{file.path} has the tensors of {titles} at once.",
            "Choose a file that holds one model.",
        )
    if not found:
        return other_kind(known, file, header)
    return _as(facts, known, file, header, _by_civitai(facts, known, found[0], header))


def path(facts: Facts, file: File) -> str:
    """Return what the names that tell models apart are looked for in: the repository's and the file's."""
    return f"{facts.repository}/{file.path}"


def bare(header: SafetensorsHeader) -> Mapping[str, tuple[int, ...]]:
    """Return the shapes of all tensors, those behind the usual prefix under their short names as well."""
    shapes = dict(header.tensors)
    for name in header.tensors:
        if name.startswith(_PREFIX):
            shapes[name.removeprefix(_PREFIX)] = header.tensors[name]
    return shapes


def matches(known: Knowledge, header: SafetensorsHeader, name: str) -> list[Checkpoint]:
    """Return the checkpoints that a file may be: one, unless it holds what belongs to two models."""
    shapes = bare(header)
    found = [each for each in known.checkpoints.values() if _fits(each, shapes)]
    beaten = {other for each in found for other in each.over}
    found = [each for each in found if each.id not in beaten]
    named = [each for each in found if each.name and re.search(each.name, name)]
    return named[:1] or [each for each in found if not each.name]


def _fits(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if any(key not in shapes for key in checkpoint.keys) or any(key in shapes for key in checkpoint.without):
        return False
    return all(key in shapes and _shaped(shapes[key], wanted) for key, wanted in checkpoint.shapes.items())


def _shaped(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) >= len(wanted) and all(
        want in {None, size} for size, want in zip(shape, wanted, strict=False)
    )


def _by_civitai(facts: Facts, known: Knowledge, found: Checkpoint, header: SafetensorsHeader) -> Checkpoint:
    """Return what CivitAI or the file's own metadata calls it, where its tensors leave that open."""
    words = [("civitai", facts.civitai.base_model)] if facts.civitai else []
    words.append(("modelspec", lora.architecture(header)))
    for table, word in words:
        meant = known.named(table, word)
        if meant and meant.family == found.family and _same(meant, found):
            return meant
    return found


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two have the same tensors, so that a word has to tell them apart."""
    return (one.keys, one.without, one.shapes) == (other.keys, other.without, other.shapes)


def proof(checkpoint: Checkpoint, header: SafetensorsHeader, file: File, name: str) -> list[str]:
    """Return the lines that say by what a file was told."""
    shapes = bare(header)
    said = [f"{file.path}: tensor {key}" for key in checkpoint.keys]
    said += [f"{file.path}: {key} has the shape {list(shapes[key])}" for key in checkpoint.shapes]
    if checkpoint.name and re.search(checkpoint.name, name):
        said.append(f"{file.path}: told from others with such tensors by its name alone")
    return said


def _as(
    facts: Facts, known: Knowledge, file: File, header: SafetensorsHeader, checkpoint: Checkpoint
) -> Decision:
    """Decide on a file of a known family."""
    task = known.classes.task(checkpoint.pipeline)
    whole = checkpoint.loads == _PIPELINE
    kind = CHECKPOINT if whole else TRANSFORMER
    decision = Decision(
        kind,
        checkpoint.family,
        checkpoint.id,
        task=task,
        tasks=known.classes.tasks(checkpoint.pipeline) if checkpoint.pipeline else (),
        pipeline=checkpoint.pipeline,
        component="" if whole else checkpoint.component,
        subfolder="" if whole else checkpoint.subfolder,
        layout="original",
        files=(file,),
        evidence=tuple(proof(checkpoint, header, file, path(facts, file))),
    )
    if checkpoint.halves:
        return decision.refused(
            "incomplete",
            f"{file.path} is {checkpoint.title}, and both are needed.",
            f"Choose the repository {checkpoint.base}, which has both.",
        )
    if checkpoint.loads == "nothing":
        return decision.refused(
            "no-loader",
            f"{file.path} is a single file of {checkpoint.title}, and diffusers {known.classes.version} "
            "has no pipeline that is made from such a file.",
            f"Choose {checkpoint.instead}.",
        )
    what = "a whole checkpoint" if whole else f"the {checkpoint.component} alone"
    decision = replace(
        decision,
        reason=f"{file.path} is {what} of {checkpoint.title}, for {task}.",
        memory=memory.estimate(memory.shares_of_checkpoint(file, facts), task) if whole else (),
    )
    return base.completed(decision, facts, checkpoint)


def _quantised(known: Knowledge, file: File, header: SafetensorsHeader) -> Decision | None:
    """Refuse weights that are packed in a way that is not plain."""
    ends = {".".join(name.split(".")[-_END:]): name for name in header.tensors}  # many layers have the same
    for row in known.unservable["packed"]:
        pattern = re.compile(row["tensors"])
        name = next((whole for end, whole in ends.items() if pattern.fullmatch(end)), None)
        if name:
            return Decision(files=(file,), evidence=(f"{file.path}: tensor {shown(name)}",)).refused(
                "quantised", f"{file.path} {row['says']}.", row["instead"]
            )
    return None


def other_kind(known: Knowledge, file: File, header: SafetensorsHeader) -> Decision:
    """Refuse a file of no family: by what kind of model it is, where that is told."""
    kind = known.types.of(header)
    some = ", ".join(shown(name, 60) for name in list(header.tensors)[:3])
    seen = Decision(files=(file,), evidence=(f"{file.path}: {len(header.tensors)} tensors, such as {some}",))
    if kind and kind.id in known.unservable["kinds"]:
        row = known.unservable["kinds"][kind.id]
        return seen.refused(row["code"], f"{file.path} is {kind.what}, which {row['says']}.", row["instead"])
    if kind:
        return seen.refused(
            "unknown-family",
            f"{file.path} is {kind.what} of a kind that is not known here, or lacks parts of one that is.",
            "Choose the model's repository in diffusers' layout, which has a model_index.json.",
        )
    return seen.refused(
        "unknown",
        f"{file.path} has no tensors of a model that is known here, and is not taken for one.",
        "Choose the model's repository in diffusers' layout, or a file of a family that `inspect` knows.",
    )
