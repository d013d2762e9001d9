"""What VAE and CONTROLNET name: one component of a pipeline, alone or within a whole one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pod.net.http import RefusedError
from pod.util.article import an
from pod.util.dataclass import replace
from server.detection import weight_files
from server.detection.decision import Decision
from server.detection.pipeline_folder import INDEX, components
from server.weights.model_files import COMPONENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.collection.collect import Found
    from server.detection.facts import File
    from server.detection.knowledge import Knowledge

_STARTS: Final = {"vae": ("Autoencoder", "AsymmetricAutoencoder", "ConsistencyDecoder", "VQModel")}
_PARTS: Final = {"vae": "vae", "controlnet": "controlnet"}
_SINGLE: Final = {"vae": "AutoencoderKL", "controlnet": "ControlNetModel"}
"""The class of a single file, where its kind has several: what SD and SDXL have."""
_KINDS: Final = {"vae": {"vae"}, "controlnet": {"controlnet"}}
_TITLES: Final = {"vae": "a VAE", "controlnet": "a ControlNet"}


def decided(role: str, found: Found, known: Knowledge) -> Decision:
    """Return the decision on a component: `subfolder` where it lies in a whole pipeline.

    Raises RefusedError for what is not one.
    """
    facts = found.facts
    if facts.chosen or facts.document("config.json").get("_class_name") is None:
        if facts.has(INDEX) and not facts.chosen:
            return _of_pipeline(role, found)
        return _single(role, found, known)
    name = str(facts.document("config.json")["_class_name"])
    root = [file for file in facts.files if not file.folder]
    return _in_folder(role, name, root, "")


def _of_pipeline(role: str, found: Found) -> Decision:
    part = _PARTS[role]
    index: Mapping[str, object] = found.facts.document(INDEX)
    each = next((each for each in components(index) if each.name == part), None)
    if each is None:
        raise RefusedError(f"is a pipeline without a component {part}: name {_TITLES[role]}")
    return _in_folder(role, each.cls, [file for file in found.facts.files if file.folder == part], part)


def _in_folder(role: str, name: str, files: list[File], subfolder: str) -> Decision:
    if not _is(role, name):
        raise RefusedError(f"is {an(name)}, and {_TITLES[role]} is expected")
    chosen = weight_files.weights(files, weight_files.preferred(weight_files.variants(files)))
    if chosen is None or chosen.problem:
        raise RefusedError(f"has no whole weights in .safetensors files, and {_TITLES[role]} needs them")
    configs = [file for file in files if file.name == "config.json"]
    return Decision(
        COMPONENT,
        component=name,
        subfolder=subfolder,
        layout="diffusers",
        variant=chosen.variant,
        files=(*chosen.files, *configs),
        reason=f"{name} as {role}",
    )


def _single(role: str, found: Found, known: Knowledge) -> Decision:
    """Decide on a single file by its tensors."""
    path = found.facts.chosen or next((file.path for file in found.decision.files), "")
    header = found.facts.headers.get(path)
    kind = known.types.of(header) if header else None
    if kind is None or kind.id not in _KINDS[role]:
        what = f"is {kind.what}" if kind else "is not told by its tensors"
        raise RefusedError(f"{what}, and {_TITLES[role]} is expected: a folder with config.json says more")
    decision = Decision(
        COMPONENT, component=_SINGLE[role], layout="original", reason=f"{kind.what} as {role}"
    )
    return replace(decision, files=(found.facts.file(path),))


def _is(role: str, name: str) -> bool:
    if role == "vae":
        return name.startswith(_STARTS["vae"])
    return "ControlNet" in name and name.endswith("Model")
