"""What can be wrong with what a client asks."""

from __future__ import annotations


class RequestError(Exception):
    """A request that cannot be carried out as it stands: one whole sentence. `parameter` is what is wrong."""

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter
