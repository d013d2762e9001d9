"""The body of a request: an object of JSON, or a form with files (multipart/form-data, RFC 7578)."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any, Final

from pod.util import bounded_json
from server.requests.errors import FieldError

_MOST_VALUES: Final = 20_000  # of JSON
_MOST_PARTS: Final = 200  # of a form
_LONGEST_HEAD: Final = 4_000  # bytes of the headers of one part
FORM: Final = "multipart/form-data"
_NOT_JSON: Final = "The body is not an object of JSON."
_NOT_A_FORM: Final = "The body is not the form (multipart/form-data) that its headers say it is."


@dataclass
class Form:
    """What a body holds.

    Attributes:
        values: What is said, by field.
        files: Contents of files, by field.
        textual: Whether values are texts, as in forms, so that numbers have to be read.
    """

    values: dict[str, Any]
    files: dict[str, list[bytes]] = field(default_factory=dict)
    textual: bool = False


def parse(body: bytes, kind: str) -> Form:
    """Read a body. Raises FieldError.

    Args:
        body: All of it.
        kind: Content-Type, with its parameters.
    """
    about = Message()
    about["Content-Type"] = kind
    if about.get_content_type() == FORM:
        try:
            return _of_parts(body, about.get_boundary() or "")
        except (TypeError, ValueError):  # of parameters in the form of RFC 2231 that is none
            raise FieldError(_NOT_A_FORM) from None
    try:
        found = bounded_json.parse(body, _MOST_VALUES)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FieldError(_NOT_JSON)
    return Form(found)


def _of_parts(body: bytes, boundary: str) -> Form:
    line = f"--{boundary}".encode("ascii", "replace")
    if not boundary or not body.startswith(line):
        raise FieldError(_NOT_A_FORM)
    form = Form({}, textual=True)
    # The delimiter begins with the end of the line before it, which the first one does not have.
    parts = body[len(line) :].split(b"\r\n" + line, _MOST_PARTS + 1)
    if len(parts) > _MOST_PARTS + 1:
        raise FieldError(f"The form has more than {_MOST_PARTS} parts.")
    if not parts[-1].startswith(b"--"):
        raise FieldError(_NOT_A_FORM)
    for part in parts[:-1]:
        _take(form, part)
    return form


def _take(form: Form, part: bytes) -> None:
    head, ends, content = part.partition(b"\r\n\r\n")
    if not ends or len(head) > _LONGEST_HEAD:
        raise FieldError(_NOT_A_FORM)
    about = BytesHeaderParser().parsebytes(head.lstrip(b"\r\n"))
    name = about.get_param("name", header="content-disposition")
    if not isinstance(name, str) or not name:
        raise FieldError(_NOT_A_FORM)
    named = about.get_filename()
    if named == "" and not content:
        return  # a page's field for a file that nobody chose
    if named is not None:
        form.files.setdefault(name.removesuffix("[]"), []).append(content)
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise FieldError(f"{name} is not text in UTF-8.", name) from None
    if name.endswith("[]"):
        form.values.setdefault(name.removesuffix("[]"), []).append(text)
    else:
        form.values[name] = text
