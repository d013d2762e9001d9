"""A draft held against the model: its files read, its task chosen, its parameters checked."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from server.generation.request import IMAGE, VIDEO, Generation, RequestError
from server.requests import media, tasks
from server.requests.errors import INVALID, UNKNOWN, FieldError
from server.requests.fields import number, parsed, switch
from server.requests.lengths import of_seconds
from server.schema.parameters import BOOLEAN, INTEGER, MEDIA, NUMBER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from server.generation.request import Model
    from server.requests.draft import Draft
    from server.requests.media import Reader
    from server.schema.parameters import Parameter, Schema

REFERENCE: Final = "reference"
"""The field of a draft whose file is an image or a video: which, its content says."""
_ALIASES: Final = {
    "image": ("images", "input_image", "input_images", "reference_image", "ref_image", "control_image"),
    "mask_image": ("mask",),
}
"""What pipelines call the files of OpenAI's routes, where they call them otherwise."""
_DRAWN: Final = 2**32  # seeds that are drawn are below: they stay exact in every client's numbers


async def made(draft: Draft, model: Model, reader: Reader) -> Generation:
    """Return the generation that a draft asks for. Raises RequestError."""
    _sort(draft, model)
    files = await reader.read(draft.media)
    _place_reference(draft, files)
    for name, contents in files.items():
        for each in contents:
            media.check(draft.named(name), each, [media.kind_named(name)])
    draft.media = dict(files)
    schema = tasks.chosen(model, draft)
    _fill(draft, schema)
    values = _checked(draft, schema, files)
    _check_steps(schema, values)
    return Generation(
        task=schema.task,
        parameters={name: value for name, value in values.items() if name not in files},
        media=files,
        seed=secrets.randbelow(_DRAWN) if draft.seed is None else draft.seed,
        scheduler=draft.scheduler,
        loras=draft.loras,
        image_format=draft.image_format,
        quality=draft.quality,
        previews=draft.previews,
    )


def _checked(draft: Draft, schema: Schema, files: dict[str, list[bytes]]) -> dict[str, Any]:
    given = _typed(draft, schema)
    for name, contents in files.items():
        parameter = schema.parameter(name)
        given[name] = contents[0] if len(contents) == 1 and not (parameter and parameter.many) else contents
    try:
        return schema.checked(given)
    except FieldError:
        raise
    except RequestError as error:
        name = error.parameter
        code = UNKNOWN if name and schema.parameter(name) is None else INVALID
        said = draft.named(name)
        sentence = str(error) if said in str(error) else f"{said}: {error}"
        raise FieldError(sentence, said, code) from None


def _sort(draft: Draft, model: Model) -> None:
    """Put values that are the addresses of files where files are."""
    known = {
        each.name for task in model.info.tasks for each in model.schema(task).parameters if each.kind == MEDIA
    }
    for name, names in _ALIASES.items() if draft.makes else ():
        if name in draft.media and name not in known:
            place = next((each for each in names if each in known), name)
            draft.media[place] = draft.media.pop(name)
            draft.names[place] = draft.named(name)
    for name in [*draft.values]:
        if name in known:
            value = draft.values.pop(name)
            draft.media.setdefault(name, []).extend(value if isinstance(value, list) else [value])


def _place_reference(draft: Draft, files: dict[str, list[bytes]]) -> None:
    given = files.pop(REFERENCE, None)
    if given is None:
        return
    kind = media.kind_of(given[0])
    place = VIDEO if kind == VIDEO else IMAGE
    files.setdefault(place, []).extend(given)
    draft.names[place] = draft.names.pop(REFERENCE, REFERENCE)


def _fill(draft: Draft, schema: Schema) -> None:
    """Give values whose parameters have several names the one that the pipeline has. Raises FieldError."""
    for field, (names, value) in draft.aliases.items():
        name = next((each for each in names if schema.parameter(each)), None)
        if name is None:
            raise FieldError(f"{field} is nothing that this model takes for {schema.task}.", field, UNKNOWN)
        _put(draft, name, value, field)
    if draft.seconds is not None:
        name, value = of_seconds(schema, draft.seconds, draft.values)
        _put(draft, name, value, "seconds")


def _put(draft: Draft, name: str, value: Any, field: str) -> None:
    if name in draft.values:
        raise FieldError(f"{name} is given twice: also by {field}.", name)
    draft.values[name] = value
    draft.names[name] = field


def _check_steps(schema: Schema, values: Mapping[str, Any]) -> None:
    """Refuse a strength that leaves no step: some pipelines check that themselves, others fail on nothing."""
    steps, strength = (_used(schema, values, name) for name in ("num_inference_steps", "strength"))
    if steps is not None and strength is not None and int(steps * strength) < 1:
        raise FieldError(
            f"strength {strength:g} of {steps:g} steps leaves none: raise strength or num_inference_steps.",
            "strength",
        )


def _used(schema: Schema, values: Mapping[str, Any], name: str) -> float | None:
    parameter = schema.parameter(name)
    value = values.get(name, parameter.default) if parameter else None
    return float(value) if isinstance(value, int | float) else None


def _typed(draft: Draft, schema: Schema) -> dict[str, Any]:
    if not draft.textual:
        return dict(draft.values)
    found = {}
    for name, value in draft.values.items():
        parameter = schema.parameter(name)
        found[name] = _of_text(parameter, value) if parameter and isinstance(value, str) else value
    return found


def _of_text(parameter: Parameter, text: str) -> Any:
    if parameter.many and text[:1] == "[" and isinstance(found := parsed(text), list):
        return found
    if parameter.kind in (INTEGER, NUMBER):
        return number(text)
    return switch(text) if parameter.kind == BOOLEAN else text
