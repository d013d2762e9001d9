"""A LoRA: in which form it is, and which model it belongs on.

Evidence for the base, the best first: BASE_MODEL, CivitAI's baseModel, the card's base_model, the metadata of
the file, and the names and shapes of its tensors, which tell a family alone. Where the tensors contradict
what is written about them, the tensors are believed.
Keys: diffusers 0.42.1 loaders/lora_conversion_utils.py; modelspec and ss_*: kohya sd-scripts 48d368fa.
"""

from __future__ import annotations

import re

from pod.util.article import an
from pod.util.dataclass import dataclass, replace
from pod.util.printable import shown
from server.detection import base as base_of
from server.detection.decision import LORA, Base, Decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from pod.resolve.safetensors_header import SafetensorsHeader
    from server.detection.facts import Facts, File
    from server.detection.knowledge import Checkpoint, Knowledge

# The down side of a pair, by form; its second dimension is the width of the layer that it changes.
_DOWN = (
    ("peft", re.compile(r"(?P<layer>.+)\.lora_A(?:\.\w+)?(?:\.weight)?")),
    (
        "kohya",
        re.compile(r"(?P<layer>(?:lora_(?:unet|te\d?|transformer|prior)|lycoris)_.+)\.lora_down\.weight"),
    ),
    ("comfy", re.compile(r"(?P<layer>.+)\.lora_down\.weight")),
    ("diffusers", re.compile(r"(?P<layer>.+)[._]lora\.down\.weight")),
    ("diffusers", re.compile(r"(?P<layer>.+)\.lora_linear_layer\.down\.weight")),
    ("xlabs", re.compile(r"(?P<layer>.+\.processor\.\w+_lora[12]\.down)\.weight")),
)
_OTHER = (
    ("LoKr", re.compile(r".+\.lokr_w[12](?:_[ab])?")),
    ("LoHa", re.compile(r".+\.hada_w[12]_[ab]")),
    ("OFT", re.compile(r".+\.oft_(?:blocks|diag)|.+\.oft_R(?:\.\w+)?(?:\.weight)?")),
    ("full difference", re.compile(r".+\.diff")),
)
_MARK = re.compile(r"lora|\.lokr_|\.hada_|\.oft_|\.diff$", re.MULTILINE)
"""What one of its tensors is called at least."""
_LOKR = frozenset({"flux2", "z-image"})
"""Families whose LoKr files diffusers converts (its functions *_lokr_to_diffusers)."""


@dataclass(frozen=True)
class Form:
    """How a LoRA is written down, and the first tensor that shows it; `layers` are widths by layer."""

    name: str
    tensor: str
    layers: tuple[tuple[str, int | None], ...] = ()


def form(header: SafetensorsHeader) -> Form | None:
    """Return the form of a LoRA; None for what is none: a quarter of its tensors has to be of adapters."""
    if not _MARK.search("\n".join(header.tensors)):
        return None
    down = list(_pairs(header))
    if down and len(down) * 4 > len(header.tensors):
        return Form(down[0][0], down[0][1], tuple((layer, width) for _, _, layer, width in down))
    for name, pattern in _OTHER:
        found = [each for each in header.tensors if pattern.fullmatch(each)]
        if len(found) * 4 > len(header.tensors):
            return Form(name, found[0], tuple((each.rpartition(".")[0], None) for each in found))
    return None


def _pairs(header: SafetensorsHeader) -> Iterator[tuple[str, str, str, int | None]]:
    for tensor, shape in header.tensors.items():
        for name, pattern in _DOWN:
            if found := pattern.fullmatch(tensor):
                yield name, tensor, found["layer"], shape[1] if len(shape) > 1 else None
                break


def architecture(header: SafetensorsHeader) -> str:
    """Return what `modelspec.architecture` names, without what follows a slash (`/lora`)."""
    return header.metadata.get("modelspec.architecture", "").partition("/")[0]


def family(known: Knowledge, found: Form) -> tuple[Checkpoint, str] | None:
    """Return what a LoRA's tensors fit, and the layer that shows it; None where nothing, or two families."""
    hits: dict[str, tuple[Checkpoint, str]] = {}
    text = "\n".join(f"{layer}." for layer, _ in found.layers)
    widths = {width for _, width in found.layers}
    for rule in known.lora_rules:
        if rule.width not in {None, *widths} or (rule.without and rule.without.search(text)):
            continue
        for layer, width in found.layers:
            if rule.width in {None, width} and rule.pattern.match(f"{layer}."):
                said = f"{layer} changes a layer of width {width}" if rule.width else f"there is {layer}"
                hits.setdefault(rule.family, (known.checkpoints[rule.checkpoint], said))
                break
    return next(iter(hits.values())) if len(hits) == 1 else None


def decide(facts: Facts, known: Knowledge, file: File) -> Decision:
    """Decide on a LoRA whose head was read."""
    header = facts.headers[file.path]
    found = form(header)
    if found is None:
        raise ValueError("expected a LoRA")
    by_tensors = family(known, found)
    decision = Decision(
        LORA,
        by_tensors[0].family if by_tensors else "",
        layout=found.name,
        files=(file,),
        evidence=(f"{file.path}: a LoRA in the form of {found.name}, by {shown(found.tensor, 100)}",),
    )
    if by_tensors:
        decision = replace(decision, evidence=(*decision.evidence, f"{file.path}: {by_tensors[1]}"))
    if refusal := _form_refused(decision, found, file):
        return refusal
    return _on(decision, facts, known, file, by_tensors[0] if by_tensors else None)


def _form_refused(decision: Decision, found: Form, file: File) -> Decision | None:
    names = {name for name, pattern in _OTHER if pattern.fullmatch(found.tensor)}
    if not names or (found.name == "LoKr" and decision.family in _LOKR):
        return None
    return decision.refused(
        "lora-form",
        f"{file.path} is {an(found.name)} file, a form that diffusers does not convert for this family.",
        "Choose a LoRA with lora_A and lora_B, or lora_up and lora_down; ComfyUI's images take this one.",
    )


def _on(decision: Decision, facts: Facts, known: Knowledge, file: File, fits: Checkpoint | None) -> Decision:
    """Find the base; refuse where nothing tells it."""
    said: list[str] = []
    for base, meant in _written(facts, known, file):
        if fits and meant and meant.family != fits.family:
            said.append(f"{base.why}; not believed, for the tensors are those of {fits.title}")
            continue
        return _based(decision, known, base, meant or fits, said)
    if fits:
        base = Base(fits.base, f"the default for {fits.id}, as the tensors tell", fits.gated)
        return _based(decision, known, base, fits, said)
    return replace(decision, evidence=(*decision.evidence, *said)).refused(
        "no-base",
        f"{file.path} is a LoRA, and nothing tells which model it belongs on.",
        "Set BASE_MODEL to the repository of that model, such as stabilityai/stable-diffusion-xl-base-1.0.",
    )


def _written(facts: Facts, known: Knowledge, file: File) -> Iterator[tuple[Base, Checkpoint | None]]:
    """Yield what is written of the base, the best evidence first."""
    if facts.base_model:
        yield Base(facts.base_model, "BASE_MODEL names it"), known.of_base(facts.base_model)
    if facts.civitai and (meant := known.named("civitai", facts.civitai.base_model)):
        yield _default(meant, f"CivitAI's baseModel is {facts.civitai.base_model}"), meant
    for name in facts.card.base_models if facts.card else ():
        yield _named(known, name, f"the card's base_model is {shown(name, 80)}")
    header = facts.headers[file.path]
    config = facts.document("adapter_config.json").get("base_model_name_or_path")
    if isinstance(config, str) and re.fullmatch(r"[\w.-]+/[\w.-]+", config):
        yield _named(known, config, f"adapter_config.json names {config}")
    for table, key, word in (
        ("modelspec", "modelspec.architecture", architecture(header)),
        ("kohya", "ss_base_model_version", header.metadata.get("ss_base_model_version", "")),
    ):
        if meant := known.named(table, word):
            yield _default(meant, f"its metadata has {key} {word}"), meant


def _named(known: Knowledge, name: str, why: str) -> tuple[Base, Checkpoint | None]:
    """Return the base that a repository is, or has in diffusers' layout."""
    meant = known.of_base(name)
    if meant and name.lower() != meant.base.lower():
        return Base(meant.base, f"{why}, which is {meant.base} in diffusers' layout", meant.gated), meant
    return Base(name, why, bool(meant and meant.gated)), meant


def _default(meant: Checkpoint, why: str) -> Base:
    return Base(meant.base, f"{why}: the default for {meant.id}", meant.gated)


def _based(
    decision: Decision, known: Knowledge, base: Base, meant: Checkpoint | None, said: list[str]
) -> Decision:
    pipeline = meant.pipeline if meant else ""
    title = meant.title if meant else base.repository
    return replace(
        decision,
        family=meant.family if meant else decision.family,
        checkpoint=meant.id if meant else "",
        task=known.classes.task(pipeline),
        tasks=known.classes.tasks(pipeline) if pipeline else (),
        pipeline=pipeline,
        base=base,
        missing=base_of.missing(base),
        reason=f"{decision.files[0].path} is a LoRA for {title}, on {base.repository}.",
        evidence=(*decision.evidence, *said, base.why),
    )
