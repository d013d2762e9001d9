"""Requests in the pipeline's own words: POST /generate, and `input` of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from server.requests import draft as drafts
from server.requests.fields import Fields
from server.requests.openai import check_model

if TYPE_CHECKING:
    from server.generation.request import ModelInfo
    from server.requests.draft import Draft
    from server.requests.form import Form


def read(form: Form, info: ModelInfo) -> Draft:
    """Read a request. Raises FieldError."""
    fields = Fields(form)
    check_model(fields.take("model"), info)
    draft = drafts.begun(fields, info)
    draft.task = fields.text("task") or ""
    draft.previews = fields.flag("previews")
    return drafts.finished(draft, fields)
