"""The model that an image serves: `model` of a variant with `serve: diffusers`.

It is named in the words of a pod's variables, which its own code reads: server.settings, and
server.collection.reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field

from pod.errors import PodError
from podkiln.config.document import StrictModel, TupleOf
from podkiln.config.messages import PatternType
from server import settings
from server.collection import reference

if TYPE_CHECKING:
    from podkiln.config.variant import LoadedVariant
    from server.settings import Settings

Word = Annotated[str, PatternType(r"^[^\s,\x00-\x1f\x7f]{1,2000}$", "one word, without blanks and commas")]


class ServedModel(StrictModel):
    """The model that is served, and what is put into it."""

    id: Word = Field(
        description="What MODEL_ID would name: org/repo, hf:org/repo@revision:name.safetensors, "
        "civitai:MODEL@VERSION, or an https address with #sha256= behind it."
    )
    revision: Word | None = Field(
        None, description="A branch, tag or commit, or a version on CivitAI; `lock` pins what it is then."
    )
    base: Word | None = Field(
        None, description="BASE_MODEL: what a LoRA or a part belongs on, in place of what it says."
    )
    vae: Word | None = Field(None, description="VAE: the one to use in place of the model's own.")
    controlnet: Word | None = Field(None, description="CONTROLNET: the one to steer it with.")
    loras: TupleOf[Word] = Field(
        (), description="Words as in LORAS, each with =SCALE, from -10 to 10, behind it or not."
    )

    def variables(self) -> dict[str, str]:
        """Return the variables of a pod that say the same; those that are not needed are left out."""
        said = {
            "MODEL_ID": self.id,
            "MODEL_REVISION": self.revision,
            "BASE_MODEL": self.base,
            "VAE": self.vae,
            "CONTROLNET": self.controlnet,
            "LORAS": ",".join(self.loras),
        }
        return {name: value for name, value in said.items() if value}

    def settings(self) -> Settings:
        """Return them as a pod reads them. Raises SettingError."""
        return settings.parse(self.variables())


def check(described: LoadedVariant) -> None:
    """Raise DescriptionError for a model that nothing serves, or that cannot be locked by its words."""
    model = described.spec.model
    if model is None:
        return
    if described.spec.has_comfyui:
        what = "without `serve: diffusers` there is no server of one model: leave it out."
        raise described.error(("model",), what, hint="Models for ComfyUI stand under `models:`.")
    try:
        found = model.settings()
    except PodError as wrong:
        raise described.error(("model",), str(wrong)) from None
    if len(found.loras) != len(model.loras):
        what = "a LoRA is duplicated, or is called none: name each once."
        raise described.error(("model", "loras"), what)
    for location, word in _words(model, found):
        if problem := _problem(word):
            raise described.error(("model", *location), f"{word!r} {problem}.")


_KEYS: Final = ("id", "base", "vae", "controlnet")


def _words(model: ServedModel, found: Settings) -> list[tuple[tuple[str | int, ...], str]]:
    plain = [((key,), value) for key in _KEYS if (value := getattr(model, key))]
    return [*plain, *((("loras", number), each.word) for number, each in enumerate(found.loras))]


def _problem(word: str) -> str | None:
    """Return why a word cannot be locked; it continues a sentence that begins with the word."""
    if word.startswith(reference.LOCAL):
        return "is a path, and only what a hub or an address serves is locked: give it as MODEL_ID at start"
    bare, sha256 = reference.split_hash(word)
    try:
        meant = reference.parse(bare)
    except reference.WordError as wrong:
        return str(wrong)
    if meant.kind == "local":
        return f"is a file or folder here, and a repository too perhaps: write hf:{word} for that"
    if meant.kind == "https" and not sha256:
        return "is an address, of which nothing says what it serves: write #sha256=… behind it"
    if meant.kind == "https" and reference.told(meant.source["url"]) != meant.source["url"]:
        return "has a login or a query, which may be secret, and the image would show it"
    return None
