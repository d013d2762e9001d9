"""Leave out what strip.yaml lists, right after a package was installed, and tell its RECORD.

Usage: strip_files.py RULES SITE_PACKAGES     files of Python distributions
       strip_files.py RULES debian [ROOT]     files of Debian packages

RULES has a line `VERB PACKAGE PATTERN` a rule; # begins a comment. `remove` takes the files away, with
folders that are then empty, and their lines out of RECORD; `empty` leaves files of 0 bytes, and RECORD says
so. In a pattern * matches / too. Several Debian packages that share a rule are joined by commas. A rule that
matches no file of an installed package ends the build: a new release has moved what it was written for.

RECORD: https://packaging.python.org/en/latest/specifications/recording-installed-packages/. dpkg's
info/*.list has an absolute path a line, and is left as it is, as dpkg's own path-exclude leaves it.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import re
import sys
from pathlib import Path

EMPTY = ("sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", "0")  # base64url of the SHA-256 of nothing
FAILED = 1


class NoMatchError(Exception):
    """A rule that takes nothing away."""


def read_rules(path: Path) -> list[tuple[str, str, str]]:
    """Return (verb, package, pattern) of each rule."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [tuple(line.split(" ", 2)) for line in lines if line and not line.startswith("#")]  # type: ignore[misc]


def normal(name: str) -> str:
    """Return the canonical form of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def strip_python(rules: list[tuple[str, str, str]], site: Path) -> int:
    """Apply the rules to the distributions of a site-packages folder; return how many bytes went."""
    records = {normal(each.parent.name.split("-")[0]): each for each in site.glob("*.dist-info/RECORD")}
    return sum(
        strip_one(verb, package, pattern, records.get(package), site) for verb, package, pattern in rules
    )


def strip_one(verb: str, package: str, pattern: str, record: Path | None, site: Path) -> int:
    """Apply one rule to a distribution, if it is installed. Raises NoMatchError."""
    if record is None:  # rules are for what is locked; `--source requirements=` may bring less
        return 0
    kept: list[list[str]] = []
    freed = found = 0
    for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"), newline="")):
        path = row[0] if row else ""
        if not fnmatch.fnmatchcase(path, pattern) or ".dist-info/" in path:
            kept.append(row)
            continue
        found += 1
        freed += (site / path).stat().st_size
        (site / path).unlink()
        if verb == "empty":
            (site / path).touch(mode=0o644)
            kept.append([path, *EMPTY])
        else:
            remove_empty_folders((site / path).parent, site)
    if not found:
        raise NoMatchError(f"the Python package {package} has no file {pattern}")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(kept)
    record.unlink()  # it may share its bytes with a cache
    record.write_text(text.getvalue(), encoding="utf-8")
    return freed


def remove_empty_folders(folder: Path, site: Path) -> None:
    """Remove a folder, and those above it, as far as they are empty."""
    while folder != site and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def strip_debian(rules: list[tuple[str, str, str]], root: Path) -> int:
    """Apply the rules to Debian packages, each rule to one set of them. Returns the bytes that went."""
    freed = 0
    unmatched = {package for _, packages, _ in rules for package in packages.split(",")}
    for _, packages, pattern in rules:
        found = {
            path: package
            for package in packages.split(",")
            for path in listed(package, root)
            if fnmatch.fnmatchcase(path, pattern)
        }
        if not found:
            raise NoMatchError(f"the Debian packages {packages} have no file {pattern}")
        unmatched -= set(found.values())
        for path in found:
            file = root / path.lstrip("/")
            freed += file.lstat().st_size
            file.unlink()
    if unmatched:
        raise NoMatchError(f"no pattern matches a file of {', '.join(sorted(unmatched))}")
    return freed


def listed(package: str, root: Path) -> list[str]:
    """Return the files and links of a Debian package, which has a list with or without its architecture."""
    info = root / "var/lib/dpkg/info"
    lists = sorted([*info.glob(f"{package}.list"), *info.glob(f"{package}:*.list")])
    paths = [line for each in lists for line in each.read_text(encoding="utf-8").splitlines()]
    files = ((path, root / path.lstrip("/")) for path in paths)
    return [path for path, file in files if file.is_symlink() or file.is_file()]


def main(arguments: list[str]) -> int:
    """Apply a file of rules; say how much went."""
    rules = read_rules(Path(arguments[0]))
    try:
        if arguments[1] == "debian":
            freed = strip_debian(rules, Path(*arguments[2:] or "/"))
        else:
            freed = strip_python(rules, Path(arguments[1]))
    except NoMatchError as stale:
        sys.stderr.write(
            f"podkiln: {stale}, which variants/system/strip.yaml leaves out: "
            "correct the row there, or set `runtime.strip: false` in the variant.\n"
        )
        return FAILED
    sys.stdout.write(f"left out: {freed / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
