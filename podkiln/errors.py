"""Everything that a user can cause to go wrong: one class a failure, one exit code a class.

The codes are an interface (docs/reference/exit-codes.md); CI scripts branch on them.
"""

from __future__ import annotations


class PodkilnError(Exception):
    """Root of all expected failures.

    The message says in one sentence what happened and where; `hint` says what to do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PodkilnError):
    """The command line does not make sense."""

    exit_code = 2


class DescriptionError(PodkilnError):
    """A variant, model or flags file is wrong; the message carries file, line and key."""

    exit_code = 3


class LockError(PodkilnError):
    """The lock is missing, damaged or stale, or could not be resolved."""

    exit_code = 4


class PlanRefusedError(PodkilnError):
    """The plan holds something that must not be built or pushed; or a model cannot be served."""

    exit_code = 5


class RenderError(PodkilnError):
    """A template and its data do not fit, or what is committed differs from what is rendered."""

    exit_code = 6


class LintError(PodkilnError):
    """What was rendered breaks a rule."""

    exit_code = 7


class EngineError(PodkilnError):
    """No Docker Engine answers, or the one that does cannot do what is needed."""

    exit_code = 8


class BuildFailedError(PodkilnError):
    """BuildKit ran and failed: at a step, or as ComfyUI cannot import a custom node."""

    exit_code = 9


class RegistryError(PodkilnError):
    """The registry refused, or could not be reached."""

    exit_code = 10


class SourceError(PodkilnError):
    """A base, a source tree or a weight could not be fetched from its source."""

    exit_code = 11


class IntegrityError(PodkilnError):
    """Bytes do not have the digest that they were promised to have."""

    exit_code = 12


class VerifyError(PodkilnError):
    """What the registry holds is not what the lock says."""

    exit_code = 13


class CommandError(PodkilnError):
    """A program that podkiln called failed, or is not there."""

    exit_code = 14


class InterruptedByUserError(PodkilnError):
    """Ctrl-C: what was half-made is deleted; the sentence names what a registry did not let be deleted."""

    exit_code = 130


class TerminatedError(PodkilnError):
    """SIGTERM, as a CI job gets that is cancelled: cleaned up and said as after Ctrl-C."""

    exit_code = 143


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM where Ctrl-C raises its base: what cleans up after one also does after the other."""
