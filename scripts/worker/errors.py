"""The one way in which a job fails: what its client is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class JobError(Exception):
    """A job that ends as FAILED: the message is for its client, and so are the details, a sentence each."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.details = tuple(details)

    @property
    def answer(self) -> dict[str, Any]:
        """The job's output: the platform takes `error` out of it and ends the job as FAILED."""
        return {"error": str(self), **({"details": list(self.details)} if self.details else {})}
