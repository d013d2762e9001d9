"""OpenAI's fields, of images, edits and videos, and of vLLM-Omni's sound.

Sources: the types of openai-python 3.57.0, and vllm-omni 0.30.0, whose fields of sound are `input`,
`audio_length`, `audio_start` and the pipeline's own.

What is not OpenAI's is the pipeline's own: clients send it by extra_body.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pod.util.printable import shown
from server.generation.request import AUDIO, IMAGE, VIDEO
from server.requests import draft as drafts
from server.requests.errors import NO_MODEL, FieldError
from server.requests.fields import Fields, number
from server.requests.generations import REFERENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from server.generation.request import ModelInfo
    from server.requests.draft import Draft
    from server.requests.form import Form

MOST_IMAGES: Final = 10
_COUNTS: Final = ("num_images_per_prompt", "num_videos_per_prompt", "num_waveforms_per_prompt", "batch_size")
_QUALITIES: Final = ("auto", "low", "medium", "high", "xhigh", "max", "standard", "hd")
# What changes nothing here, or is for the one who answers for what is made.
_IGNORED: Final = ("moderation", "style", "user", "safety_identifier", "input_fidelity", "generator_device")
_SECONDS: Final = re.compile(r"[0-9]{1,4}(\.[0-9]{1,3})?")
_MOST_PARTIAL: Final = 3


@dataclass(frozen=True)
class Asked:
    """A request in OpenAI's words.

    Attributes:
        draft: What is to be generated.
        by_url: Whether results are to be addresses.
        stream: Whether there are to be events, and `partial` the number of pictures on the way.
        size: As it was said, "auto" where it was not.
        prompt: As it was said.
        edits: Whether pictures are edited.
    """

    draft: Draft
    by_url: bool = False
    stream: bool = False
    partial: int = 0
    size: str = "auto"
    prompt: str = ""
    edits: bool = False


def check_model(name: object, info: ModelInfo) -> None:
    """Check that a request means the model that is served. Raises FieldError."""
    if name is not None and name not in known_names(info):
        raise FieldError(
            f"The model {shown(name, 80)} is not served here: {info.id} is.", "model", NO_MODEL, status=404
        )


def known_names(info: ModelInfo) -> tuple[str, ...]:
    """Return the names by which clients may ask for the model."""
    return tuple(dict.fromkeys(("", info.id, info.id.rpartition("/")[2])))


def images(form: Form, info: ModelInfo) -> Asked:
    """Read POST /v1/images/generations. Raises FieldError."""
    return _images(Fields(form), info, edits=False)


def edits(form: Form, info: ModelInfo) -> Asked:
    """Read POST /v1/images/edits. Raises FieldError."""
    return _images(Fields(form), info, edits=True)


def _images(fields: Fields, info: ModelInfo, *, edits: bool) -> Asked:
    check_model(fields.take("model"), info)
    draft = drafts.begun(fields, info, IMAGE)
    prompt = _prompt(fields, draft)
    size = drafts.take_size(draft, fields)
    _count(fields, draft)
    fields.choice("quality", _QUALITIES)
    fields.choice("background", ("auto", "opaque"))
    for name in _IGNORED:
        fields.take(name)
    by_url = fields.choice("response_format", ("b64_json", "url")) == "url"
    stream = fields.flag("stream")
    partial = fields.integer("partial_images", 0, _MOST_PARTIAL) or 0
    draft.previews = stream and partial > 0
    if edits:
        _take_images(fields, draft)
    asked = Asked(drafts.finished(draft, fields), by_url, stream, partial, size, prompt, edits)
    if stream and ("n" in draft.aliases):
        raise FieldError("n is 1 where stream is true.", "n")
    return asked


def _take_images(fields: Fields, draft: Draft) -> None:
    found = fields.media("image")
    if not found:
        raise FieldError("image is missing: what is to be edited.", "image")
    draft.media["image"] = found
    if mask := fields.media("mask"):
        draft.media["mask_image"] = mask
        draft.names["mask_image"] = "mask"


def videos(form: Form, info: ModelInfo) -> Asked:
    """Read POST /v1/videos. Raises FieldError."""
    fields = Fields(form)
    check_model(fields.take("model"), info)
    draft = drafts.begun(fields, info, VIDEO)
    prompt = _prompt(fields, draft)
    size = drafts.take_size(draft, fields)
    draft.seconds = _seconds(fields, "seconds")
    for name in _IGNORED:
        fields.take(name)
    if reference := fields.media("input_reference"):
        if len(reference) > 1:
            raise FieldError("input_reference is one file.", "input_reference")
        draft.media[REFERENCE] = reference
        draft.names[REFERENCE] = "input_reference"
    return Asked(drafts.finished(draft, fields), size=size, prompt=prompt)


def audio(form: Form, info: ModelInfo) -> Asked:
    """Read POST /v1/audio/generate. Raises FieldError."""
    fields = Fields(form)
    check_model(fields.take("model"), info)
    if "input" in fields.left:
        fields.left.setdefault("prompt", fields.take("input"))
    draft = drafts.begun(fields, info, AUDIO)
    prompt = _prompt(fields, draft)
    fields.choice("response_format", ("wav",))
    if (speed := fields.take("speed")) not in (None, 1, "1", "1.0"):
        raise FieldError(f"speed is {shown(speed, 20)}, and 1 is the only one here.", "speed")
    for name in _IGNORED:
        fields.take(name)
    draft.seconds = _seconds(fields, "audio_length" if "audio_length" in fields.left else "seconds")
    if (start := _seconds(fields, "audio_start")) is not None:
        draft.aliases["audio_start"] = (("audio_start_in_s",), start)
    return Asked(drafts.finished(draft, fields), prompt=prompt)


ROUTES: Final[dict[str, Callable[[Form, ModelInfo], Asked]]] = {
    "/v1/images/generations": images,
    "/v1/images/edits": edits,
    "/v1/videos": videos,
    "/v1/audio/generate": audio,
}
"""What reads a request, by its route."""


def _prompt(fields: Fields, draft: Draft) -> str:
    prompt = fields.text("prompt", required=True) or ""
    if prompt:  # a model without prompts is asked with an empty one
        draft.values["prompt"] = prompt
    return prompt


def _count(fields: Fields, draft: Draft) -> None:
    count = fields.integer("n", 1, MOST_IMAGES) or 1
    if count > 1:
        draft.aliases["n"] = (_COUNTS, count)


def _seconds(fields: Fields, name: str) -> float | None:
    value = fields.take(name)
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = number(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 3600:  # noqa: PLR2004
        raise FieldError(f"{name} is not a number of seconds.", name)
    return float(value)
