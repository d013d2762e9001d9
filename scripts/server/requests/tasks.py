"""Which of a model's tasks a request means: by what is to come out, and by the files that it brings. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from server.generation.request import AUDIO, IMAGE, MESH, VIDEO
from server.requests.errors import FieldError
from server.schema.parameters import MEDIA

if TYPE_CHECKING:
    from collections.abc import Collection

    from server.generation.request import Model
    from server.requests.draft import Draft
    from server.schema.parameters import Schema

_ROUTES: Final = {
    IMAGE: "POST /v1/images/generations and /v1/images/edits",
    VIDEO: "POST /v1/videos",
    AUDIO: "POST /v1/audio/generate",
    MESH: "POST /generate",
}


def made_by(task: str) -> str:
    """Return what comes out of a task: IMAGE, VIDEO, AUDIO or MESH."""
    ends = {"video": VIDEO, "audio": AUDIO, "3d": MESH}
    return next((kind for end, kind in ends.items() if task.endswith(end)), IMAGE)


def chosen(model: Model, draft: Draft) -> Schema:
    """Return the schema of the task that a request means. Raises FieldError."""
    info, given = model.info, draft.media.keys()
    if draft.task and draft.task not in info.tasks:
        raise FieldError(f"task is none of this model's: {_listed(info.tasks)}.", "task")
    tasks = (draft.task,) if draft.task else info.tasks
    schemas = [model.schema(each) for each in tasks if draft.makes in ("", made_by(each))]
    if not schemas:
        routes = sorted({_ROUTES[made_by(each)] for each in info.tasks})
        raise FieldError(f"This model does {_listed(info.tasks)}: ask {', '.join(routes)}.")
    fit = [each for each in schemas if given <= _media(each)]
    full = [each for each in fit if _required(each) <= given]
    if not full:
        raise _misfit(draft, schemas, fit)
    # Who brings a mask means inpainting; who brings nothing means what the model is for.
    return max(full, key=lambda each: (len(_required(each)), each.task == info.task))


def _misfit(draft: Draft, schemas: list[Schema], fit: list[Schema]) -> FieldError:
    does = _listed(tuple(each.task for each in schemas))
    if fit:
        lacking = sorted(_required(fit[0]) - draft.media.keys())
        names = [draft.named(each) for each in lacking]
        return FieldError(f"{' and '.join(names)} is missing: this model does {does}.", names[0])
    known = {name for each in schemas for name in _media(each)}
    strange = sorted(draft.media.keys() - known) or sorted(draft.media)
    names = [draft.named(each) for each in strange]
    together = "" if draft.media.keys() - known else " together"
    return FieldError(
        f"{' and '.join(names)} cannot be used{together}: this model does {does}, "
        f"with {', '.join(sorted(known)) or 'no files'}.",
        names[0],
    )


def _media(schema: Schema) -> set[str]:
    return {each.name for each in schema.parameters if each.kind == MEDIA}


def _required(schema: Schema) -> set[str]:
    return {each.name for each in schema.parameters if each.kind == MEDIA and each.required}


def _listed(tasks: Collection[str]) -> str:
    return ", ".join(tasks)
