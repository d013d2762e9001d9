"""What a run of `lock` did, as Markdown for a pull request: what changed, and what is still open and why.

Text from hosts and descriptions stands in it, which must not become a mention, a link or HTML there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from podkiln.lock.resolve.changes import Change
    from podkiln.lock.resolve.relock import RelockResult

_MOST: Final = 60_000  # characters; GitHub takes 65 536 for the text of a pull request
_LONGEST: Final = 300  # of one cell
_SPECIAL: Final = str.maketrans(
    {each: f"\\{each}" for each in "\\`*_{}[]()#+!|~"}
    | {"<": "&lt;", ">": "&gt;", "@": "&#64;", "&": "&amp;"}
)


def markdown(summary: RelockResult) -> str:
    """Return the page."""
    total = summary.resolved + summary.unresolved
    newly = [each for each in summary.changes if each.kind == "resolved"]
    others = [each for each in summary.changes if each.kind != "resolved"]
    head = [
        "| weights | files |",
        "| --- | ---: |",
        f"| locked | {summary.resolved} of {total} |",
        f"| resolved by this run | {len(newly)} |",
        f"| still unresolved | {summary.unresolved} |",
    ]
    sections = [
        section("Resolved", ("model", "file", "bytes", "sha256", "commit"), _resolved(summary, newly)),
        section("Changed", ("where", "what", "how", "before", "now"), map(_changed, others)),
        section("Debian packages", ("package", "before", "now", "security update"), _packages(summary)),
        section("Still unresolved", ("model", "file", "why"), summary.open_files),
        section("For a person to decide", ("what",), ([text] for text in summary.problems)),
        section("Warnings", ("what",), ([text] for text in summary.warnings)),
    ]
    return page(head, sections)


def page(head: Sequence[str], sections: Iterable[Sequence[str]]) -> str:
    """Return some lines and the sections below them. Rows that do not fit are counted."""
    lines, left = [*head], _MOST - sum(len(line) + 1 for line in head)
    for section in filter(None, sections):
        for number, line in enumerate(section):
            left -= len(line) + 1
            if left < 0:
                lines += ["", f"… and {len(section) - number} more lines, which are in the log of the run."]
                break
            lines.append(line)
        if left < 0:
            break
    return "\n".join(lines) + "\n"


def section(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a heading and a table, text of strangers made harmless; nothing where there are no rows."""
    cells = [f"| {' | '.join(_cell(value) for value in row)} |" for row in rows]
    if not cells:
        return []
    return ["", f"### {title}", "", f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}", *cells]


def _resolved(summary: RelockResult, changes: Iterable[Change]) -> Iterable[Sequence[str]]:
    for change in changes:
        file = summary.files[change.where, change.what]
        yield change.where, change.what, str(file.size), str(file.sha256), file.revision or ""


def _packages(summary: RelockResult) -> Iterable[Sequence[str]]:
    for each in summary.packages:
        yield each.name, each.before or "", each.after or "", "yes" if each.security else ""


def _changed(change: Change) -> Sequence[str]:
    what = f"{change.what} ({change.key})" if change.key else change.what
    return change.where, what, change.kind, change.before or "", change.after or ""


def _cell(value: str) -> str:
    line = " ".join(value.split())
    short = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
    return "".join(each if each.isprintable() else "?" for each in short).translate(_SPECIAL)
