"""What a variant with `serve: diffusers` may say: it has no ComfyUI, so what is only about that is refused.

What the files above say that are for ComfyUI (base.yaml) is no fault of its: it counts for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from podkiln.config.document import Document
    from podkiln.config.runtime import PythonLayer
    from podkiln.config.variant import LoadedVariant

_WITHOUT: Final = "with `serve: diffusers` the image has no ComfyUI"
_REFUSED: Final = {
    ("nodes",): "so custom nodes have no place in it",
    ("preset",): "whose workflows presets are",
    ("profile",): "whose arguments a profile chooses",
    ("runtime", "comfyui"): "so nothing can be said of it",
    ("runtime", "media"): "and no templates with pictures",
}
_OF_COMFYUI: Final = ("comfy-", "comfyui-")
"""How the packages begin that are pinned to one release of ComfyUI."""


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for a key that would have no effect."""
    spec = described.spec
    if spec.has_comfyui:
        return
    for location, why in _REFUSED.items():
        if any(_says(file, location) for file in _own(described)):
            raise described.error(location, f"{_WITHOUT}, {why}: leave it out.")
    if described.node_items:
        what = f"{_WITHOUT}, so custom nodes have no place in it."
        raise described.error(("nodes",), what, hint="Write `nodes: []`, or `extends: server`.")
    if spec.models.default:
        what = f"{_WITHOUT}, and its server fetches what MODEL_ID names: nothing is on by default."
        raise described.error(("models", "default"), what, hint="Name in `bake` what is to lie in the image.")
    if not isinstance(spec.models.offer, tuple) or set(spec.models.offer) - set(spec.models.bake):
        what = f"{_WITHOUT}, and its server fetches what MODEL_ID names: offer what is baked, and no more."
        raise described.error(("models", "offer"), what, hint="Write `offer: []` where nothing is baked.")


def python_layers(described: LoadedVariant) -> tuple[PythonLayer, ...]:
    """Return the Python layers that the image has: without ComfyUI, not those that are its release's."""
    layers = described.spec.runtime.python.layers
    if described.spec.has_comfyui:
        return layers
    return tuple(each for each in layers if not all(glob.startswith(_OF_COMFYUI) for glob in each.packages))


def _own(described: LoadedVariant) -> tuple[Document, ...]:
    """Return the files that are for such an image: the one that says `serve`, and those that extend it."""
    number = next(at for at, file in enumerate(described.chain) if file.has(("serve",)))
    return described.chain[: number + 1]


def _says(file: Document, location: tuple[str, ...]) -> bool:
    """Tell whether a file has a key, with something in it."""
    if not file.has(location):
        return False
    found: object = file.data
    for key in location:
        found = found[key] if isinstance(found, dict) else None
    return found not in (None, [], {})
