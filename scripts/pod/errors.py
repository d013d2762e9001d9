"""The one way in which pod code fails: a sentence for a person and an exit code for a script."""

from __future__ import annotations

ARGUMENTS_REFUSED = 64  # EX_USAGE of sysexits.h: COMFYUI_ARGS, a word on the command line
DATA_UNREADABLE = 65  # EX_DATAERR: flags.json, models.json
UNFIT = 69  # EX_UNAVAILABLE: a machine on which ComfyUI cannot work
INTERNAL = 70  # EX_SOFTWARE
SETTING_MALFORMED = 78  # EX_CONFIG: an environment variable


class PodError(Exception):
    """An expected failure: the message is one sentence that says what, where and what next."""

    def __init__(self, message: str, exit_code: int = INTERNAL) -> None:
        super().__init__(message)
        self.exit_code = exit_code
