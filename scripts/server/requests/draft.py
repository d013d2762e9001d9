"""A request whose fields are read, and which is not yet held against the model."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pod.util.printable import shown
from server.generation.request import LoraScale
from server.requests.errors import FieldError
from server.requests.fields import parsed

if TYPE_CHECKING:
    from server.generation.request import ModelInfo
    from server.requests.fields import Fields

FORMATS: Final = ("png", "jpeg", "webp")
MOST_SEED: Final = 2**63 - 1
_QUALITY: Final = 95  # percent
_SIZE: Final = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
_MOST_LORAS: Final = 8
_MOST_SCALE: Final = 100.0


@dataclass
class Draft:
    """What a request asks for.

    Attributes:
        values: Parameters, by the pipeline's own names.
        media: Files by parameter, each its content or a text that says where it is.
        makes: What has to come out, such as IMAGE; "" for anything.
        task: The task that is asked for; "" where it follows from the files.
        names: What the client calls a parameter, where that is another name.
        seconds: How long a video or sound is to be; None where that is not said.
        aliases: Values whose parameter has several names, of which the pipeline has one: by field, the names
            and the value.
        seed: None to draw one.
        scheduler: "" for the model's own.
        loras: None for those that the model has.
        image_format: One of FORMATS; with `quality` in percent.
        previews: Whether there are to be small pictures on the way.
        textual: Whether numbers may come as texts.
    """

    values: dict[str, Any] = field(default_factory=dict)
    media: dict[str, list[Any]] = field(default_factory=dict)
    makes: str = ""
    task: str = ""
    names: dict[str, str] = field(default_factory=dict)
    seconds: float | None = None
    aliases: dict[str, tuple[tuple[str, ...], Any]] = field(default_factory=dict)
    seed: int | None = None
    scheduler: str = ""
    loras: tuple[LoraScale, ...] | None = None
    image_format: str = "png"
    quality: int = _QUALITY
    previews: bool = False
    textual: bool = False

    def named(self, parameter: str) -> str:
        """Return what the client calls a parameter."""
        return self.names.get(parameter, parameter)


def begun(fields: Fields, info: ModelInfo, makes: str = "") -> Draft:
    """Return a draft with the fields that all routes share. Raises FieldError."""
    draft = Draft(makes=makes, textual=fields.textual)
    seed = fields.integer("seed", -1, MOST_SEED)
    draft.seed = None if seed in (None, -1) else seed
    draft.scheduler = _scheduler(fields, info)
    draft.loras = _loras(fields, info)
    draft.image_format = fields.choice("output_format", FORMATS) or "png"
    compression = fields.integer("output_compression", 0, 100)
    if compression is not None:
        draft.quality = max(1, compression)
    return draft


def finished(draft: Draft, fields: Fields) -> Draft:
    """Take what is left of a request as the pipeline's own parameters. Raises FieldError."""
    for group in ("extra_params", "diffusers_kwargs"):
        for name, value in fields.table(group).items():
            if name in draft.values or name in fields.left:
                raise FieldError(f"{name} is given twice: in {group}, and beside it.", name)
            draft.values[name] = value
            draft.names[name] = f"{group}.{name}"
    for name, value in fields.left.items():
        if name in draft.values:
            raise FieldError(f"{name} is given twice: also by {draft.named(name)}.", name)
        draft.values[name] = value
    for name, files in fields.files.items():
        draft.media.setdefault(name, []).extend(files)
    fields.left, fields.files = {}, {}
    return draft


def take_size(draft: Draft, fields: Fields) -> str:
    """Take `size`, as 1024x768; returns it, "auto" where the pipeline's own is wanted. Raises FieldError."""
    size = fields.text("size") or "auto"
    if size == "auto":
        return size
    found = _SIZE.fullmatch(size)
    if not found:
        raise FieldError(f"size is {shown(size, 40)}: give auto, or one such as 1024x1024.", "size")
    draft.values |= {"width": int(found[1]), "height": int(found[2])}
    draft.names |= {"width": "size", "height": "size"}
    return size


def _scheduler(fields: Fields, info: ModelInfo) -> str:
    name = fields.text("scheduler") or ""
    known = {*info.schedulers, info.scheduler}
    if name and name not in known:
        there = ", ".join(info.schedulers) or f"its own alone ({info.scheduler})"
        raise FieldError(f"{shown(name, 60)} is no scheduler of this model: it takes {there}.", "scheduler")
    return name


def _loras(fields: Fields, info: ModelInfo) -> tuple[LoraScale, ...] | None:
    name = "loras" if "loras" in fields.left else "lora"
    given = fields.take(name)
    if isinstance(given, str) and fields.textual and given[:1] in ("[", "{"):
        given = parsed(given)
    if given is None:
        return None
    rows = given if isinstance(given, list) else [given]
    if len(rows) > _MOST_LORAS:
        raise FieldError(f"{name} holds more than {_MOST_LORAS} LoRAs.", name)
    return tuple(_lora(name, each, info) for each in rows)


def _lora(field_name: str, given: Any, info: ModelInfo) -> LoraScale:
    row = {"name": given} if isinstance(given, str) else given
    scale = row.get("scale", 1.0) if isinstance(row, dict) and {*row} <= {"name", "scale"} else None
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise FieldError(
            f'{field_name} is not a list of objects such as {{"name": "style", "scale": 0.8}}.', field_name
        )
    if row.get("name") not in info.loras:
        there = ", ".join(info.loras) or "none"
        raise FieldError(
            f"{shown(row.get('name'), 60)} is no LoRA that requests may name here: there is {there}.",
            field_name,
        )
    if not abs(scale) <= _MOST_SCALE:
        raise FieldError(f"{field_name} has a scale beyond {_MOST_SCALE:g}.", field_name)
    return LoraScale(row["name"], float(scale))
