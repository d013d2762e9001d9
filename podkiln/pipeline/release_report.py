"""What another ComfyUI release changes: flags, folders, rules, wheels, and the layers to pull again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from podkiln.config import comfyui_flags, python_requirements, releases
from podkiln.errors import LockError
from podkiln.lock import locations, schema
from podkiln.lock.requirements import known_pins, pinned_blocks
from podkiln.lock.resolve import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from podkiln.config.releases import ParsedFlag, ReleaseFile
    from podkiln.config.variant import LoadedVariant
    from podkiln.lock.resolve.comfyui_checkout import Checkout

_KEYS: Final = ("arity", "type", "choices", "most", "group", "repeat", "default", "action")


@dataclass(frozen=True)
class ReleaseReport:
    """What one release changes against another.

    Attributes:
        before, after: The releases.
        commit: Of the new one.
        rows: What changed: kind (such as "flag gone"), name, before and now.
        layers: The layers that are other ones now, the lowest first.
        written: Files that changed.
        warnings: What a person should know, a sentence each.
        problems: Rules of ours that name what the release does not have, a sentence each with file and line.
        outdated: Rules of ours that do not hold for the release, and are left out of its images.
    """

    before: str
    after: str
    commit: str
    rows: tuple[tuple[str, str, str, str], ...]
    layers: tuple[str, ...]
    written: tuple[Path, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]
    outdated: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return it as lines for people."""
        found = [f"ComfyUI {self.after} ({self.commit}), against {self.before}:"]
        found += [f"  {kind}: {name}{_arrow(old, new)}" for kind, name, old, new in self.rows]
        found += [f"  rule to change: {text}" for text in self.problems]
        found += [f"  rule left out: {text}" for text in self.outdated]
        if not (self.rows or self.problems or self.outdated):
            found.append("  nothing that podkiln reads has changed.")
        found.append(f"  layers to pull again: {', '.join(self.layers) or 'none'}.")
        return found

    def markdown(self) -> str:
        """Return it as the text of a pull request."""
        sections = [
            table.section("Changed", ("what", "name", "before", "now"), self.rows),
            table.section("Rules to change", ("rule",), ([text] for text in self.problems)),
            table.section("Rules that do not hold any more", ("rule",), ([text] for text in self.outdated)),
            table.section("Layers to pull again", ("layer",), ([name] for name in self.layers)),
            table.section("Warnings", ("what",), ([text] for text in self.warnings)),
        ]
        head = [f"ComfyUI {self.after}, commit {self.commit}, against {self.before}."]
        return table.page(head, sections)


def compare(
    before: LoadedVariant,
    after: LoadedVariant,
    found: Checkout,
    written: Sequence[Path],
    warnings: Sequence[str],
    problems: Sequence[str],
) -> ReleaseReport:
    """Compare what was built with what is described now."""
    old, new = (each.spec.runtime.comfyui.version for each in (before, after))
    layers = _changed_layers(before, after)
    if before.spec.runtime.comfyui.tree != after.spec.runtime.comfyui.tree:
        layers += ["ComfyUI", "podkiln's own files"]
    return ReleaseReport(
        before=old,
        after=new,
        commit=found.commit,
        rows=(
            *_flags(before, after),
            *_folders(before, after),
            *_asked(before, after),
            *_wheels(before, after),
        ),
        layers=tuple(layers),
        written=tuple(written),
        warnings=tuple(warnings),
        problems=tuple(problems),
        outdated=tuple(comfyui_flags.outdated(old, new)),
    )


def _release(described: LoadedVariant) -> ReleaseFile:
    return releases.load(described.spec.runtime.comfyui.version, described.flags)[0]


def _flags(before: LoadedVariant, after: LoadedVariant) -> list[tuple[str, str, str, str]]:
    old, new = ({flag.name: flag for flag in _release(each).flags} for each in (before, after))
    known = {flag.name for flag in comfyui_flags.known_flags()}
    rows = [("flag gone", name, "", "") for name in old if name not in new]
    note = "not described in annotations.yaml"
    rows += [("flag new", name, "", "" if name in known else note) for name in new if name not in old]
    for name in new.keys() & old.keys():
        rows += [
            ("flag changed", f"{name} ({key})", then, now)
            for key, then, now in _differences(old[name], new[name])
        ]
    return sorted(rows)


def _differences(old: ParsedFlag, new: ParsedFlag) -> list[tuple[str, str, str]]:
    pairs = [(key, getattr(old, key), getattr(new, key)) for key in _KEYS]
    return [(key, _word(then), _word(now)) for key, then, now in pairs if then != now]


def _word(value: object) -> str:
    if value is None or value == ():
        return "none"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _folders(before: LoadedVariant, after: LoadedVariant) -> list[tuple[str, str, str, str]]:
    old, new = (
        releases.load_folders(each.spec.runtime.comfyui.version, each.flags) for each in (before, after)
    )
    pairs = [
        ("folder", set(old.folders) | set(old.outside), set(new.folders) | set(new.outside)),
        ("old folder name", set(old.legacy), set(new.legacy)),
    ]
    return [
        (f"{what} {how}", name, "", "")
        for what, then, now in pairs
        for how, names in (("gone", then - now), ("new", now - then))
        for name in sorted(names)
    ]


def _asked(before: LoadedVariant, after: LoadedVariant) -> list[tuple[str, str, str, str]]:
    old, new = (_by_name(python_requirements.lines(each)) for each in (before, after))
    return _compared("requirement", old, new)


def _by_name(lines: Sequence[str]) -> dict[str, str]:
    """Return what requirements say, by package: of the release, and of what the runtime adds to it."""
    found: dict[str, list[str]] = {}
    for line in lines:
        name = re.match(r"[A-Za-z0-9._-]*", line)[0]  # type: ignore[index] # it matches nothing, too
        found.setdefault(name, []).append(line.removeprefix(name).strip() or "any")
    return {name: ", ".join(sorted(wanted)) for name, wanted in found.items()}


def _compared(what: str, old: dict[str, str], new: dict[str, str]) -> list[tuple[str, str, str, str]]:
    """Return rows for what is gone, new and changed."""
    rows = [(f"{what} gone", name, old[name], "") for name in sorted(old.keys() - new.keys())]
    rows += [(f"{what} new", name, "", new[name]) for name in sorted(new.keys() - old.keys())]
    both = sorted(old.keys() & new.keys())
    return rows + [(f"{what} changed", name, old[name], new[name]) for name in both if old[name] != new[name]]


def _texts(described: LoadedVariant) -> dict[str, str]:
    """Return the locked requirements of each Python layer; none where there is no lock."""
    folder, _ = locations.folders(described)
    try:
        locked = schema.read_runtime(folder)
    except LockError:
        return {}
    return {
        layer.name: (folder / layer.file).read_text(encoding="utf-8")
        for layer in locked.installed
        if (folder / layer.file).is_file()
    }


def _wheels(before: LoadedVariant, after: LoadedVariant) -> list[tuple[str, str, str, str]]:
    texts = [_texts(each) for each in (before, after)]
    if not all(texts):
        return []
    old, new = (known_pins(text for name, text in each.items() if name != "jupyter") for each in texts)
    return _compared("wheel", old, new)


def _changed_layers(before: LoadedVariant, after: LoadedVariant) -> list[str]:
    old, new = _texts(before), _texts(after)
    if not new:
        return ["those of the Python packages that change, which are not locked yet"]
    return [name for name in new if pinned_blocks(new[name]) != pinned_blocks(old.get(name, ""))]


def _arrow(old: str, new: str) -> str:
    if old and new:
        return f": {old} -> {new}"
    return f": {old or new}" if old or new else ""
