"""Why packages cannot be added above those of a runtime, read off apt's answers: one sentence each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from podkiln.errors import DescriptionError, SourceError
from podkiln.util.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from podkiln.config.variant import LoadedVariant

# Of `apt-get --simulate`: what goes, and what is put in the place of another version.
_CHANGE: Final = re.compile(
    r"^(?:Remv (?P<gone>\S+)|Inst (?P<name>\S+) \[(?P<before>[^\]]+)\] \((?P<after>\S+))"
)
_INSTALLED: Final = re.compile(r"^Inst (\S+)", re.MULTILINE)
_NAMED: Final = 3  # of what would change, in one sentence


def require_none(answers: Mapping[str, str], described: LoadedVariant) -> None:
    """Raise DescriptionError where what a variant adds is unknown, there already, or changes something.

    `answers`: the files of scripts/resolve_packages.sh. Raises SourceError where apt refuses it all.
    """
    suite = described.spec.runtime.base.suite
    for name in answers["unknown"].split():
        raise _blamed(described, name, f"Debian {suite} has no package {name!r}.")
    together = ", ".join(described.additions.packages)
    alone = _by_package(answers["blamed"])
    for name, simulated in [*alone.items(), (together, answers["simulated"].splitlines())]:
        if what := list(_changes(simulated)):
            shown = ", ".join(what[:_NAMED]) + (", …" if len(what) > _NAMED else "")
            raise _blamed(
                described,
                name,
                f"{name} would {shown}, and the shared packages stay as they are.",
                hint=f"Take another package, or `./build.py lock{described.option} --upgrade apt`: it asks "
                "again for the shared packages, which makes other layers of them.",
            )
    if answers["refused"].strip():
        raise SourceError(f"apt cannot add {together}: {_reason(answers)}")
    come = {name.partition(":")[0] for name in _INSTALLED.findall(answers["simulated"])}
    for item in described.additions.apt:
        if item.value not in come:
            raise item.error(f"{item.value} is there already: another package of the image needs it.")


def _blamed(described: LoadedVariant, name: str, what: str, *, hint: str | None = None) -> DescriptionError:
    if item := described.additions.item(name):
        return item.error(what, hint=hint)
    of_extra = any(name in each.apt for each in described.additions.extras)
    return described.error(("runtime", "extras" if of_extra else "apt"), what, hint=hint)


def _by_package(blamed: str) -> dict[str, list[str]]:
    """Return the lines of each simulation of one package alone, which all begin with its name."""
    found: dict[str, list[str]] = {}
    for line in blamed.splitlines():
        name, _, said = line.partition(" ")
        found.setdefault(name, []).append(said)
    return found


def _changes(simulated: Iterable[str]) -> Iterator[str]:
    """Yield what a simulation would do to packages that are there."""
    for each in filter(None, map(_CHANGE.match, simulated)):
        if each["gone"]:
            yield f"remove {each['gone']}"
        else:
            yield f"replace {each['name']} {each['before']} by {each['after']}"


def _reason(answers: Mapping[str, str]) -> str:
    """Return the first thing that apt says is not met, or else its own error."""
    lines = [line.strip() for line in answers["refused"].splitlines() if line.strip()]
    unmet = [line for line in lines if " : " in line]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")]
    return masked((unmet or errors or lines)[0]).rstrip(".") + "."
