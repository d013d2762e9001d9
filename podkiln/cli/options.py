"""Options that several commands have and that are no group (podkiln.options), and what --variant means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podkiln.errors import UsageError
from podkiln.options import option

if TYPE_CHECKING:
    from collections.abc import Sequence

ALL = "all"


def names_of(values: Sequence[str], *, default: str | None = None) -> tuple[str, ...]:
    """Return the variants that --variant names, each time it is given: V, V1,V2 or all.

    Raises UsageError when it names none, an empty one, or one twice.
    """
    from podkiln.config import variant  # noqa: PLC0415 - pydantic takes its time, and --help has no use for it

    chosen = values or ([default] if default else [])
    typed = [name.strip() for value in chosen for name in value.split(",")]
    hint = f"There are: {', '.join(variant.names())}, all."
    if not any(typed):
        raise UsageError("--variant is missing.", hint=hint)
    if not all(typed):
        raise UsageError(f"--variant: there is an empty name in {', '.join(chosen)!r}.", hint=hint)
    names = [each for name in typed for each in (variant.names() if name == ALL else [name])]
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice:
        raise UsageError(f"--variant: {twice} is named twice.", hint="Name it once.")
    return tuple(names)


def one_of(values: Sequence[str], what: str, *, default: str | None = None) -> str:
    """Return the only variant that --variant names. Raises UsageError; `what` says why there is one."""
    names = names_of(values, default=default)
    if len(names) > 1:
        raise UsageError(f"--variant: {what}, so it can only be one variant.", hint="Call it once for each.")
    return names[0]


variant_option = option(
    "--variant",
    multiple=True,
    metavar="V[,V2|all]",
    help="A shipped variant, or the path of your own YAML file.",
)
json_option = option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
