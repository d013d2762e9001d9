"""How a request is refused: a sentence, the field that is wrong, and what OpenAI's clients call that."""

from __future__ import annotations

from typing import Final

from server.generation.request import RequestError

# Codes that OpenAI's API answers with (platform.openai.com/docs/guides/error-codes).
INVALID: Final = "invalid_value"
UNKNOWN: Final = "unknown_parameter"
MISSING: Final = "missing_required_parameter"
NO_MODEL: Final = "model_not_found"


class FieldError(RequestError):
    """A request with a field that cannot be used. `status`: HTTP's; `code`: one of those above."""

    def __init__(self, message: str, parameter: str = "", code: str = INVALID, status: int = 400) -> None:
        super().__init__(message, parameter)
        self.code = code
        self.status = status
