"""Whether a ComfyUI release takes every flag choice of ours: by hand, for whole source trees.

    .venv/bin/python tests/check_releases.py ../ComfyUI-0.32.0 ../ComfyUI-0.33.0
    .venv/bin/python tests/check_releases.py --flags comfyui-flags.json

For each tree: its files are written as `./build.py comfyui` writes them; for every card, RAM, memory mode and
profile the flags are chosen by the code that pods run; and the release's own parser, comfy/cli_args.py of the
tree, is run with each. That runs the tree's code, which `./build.py comfyui` never does: name trees that you
trust.

`--flags` takes a list of flags in place of a tree, for a release of which no more can be had: JSON with
`version` and `flags`, each with `name`, `arg` (store_true, or type, nargs and action of argparse), `choices`
and `group`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from podkiln.config import comfyui_flags, comfyui_source, release_text, releases, variant  # noqa: E402 - path first
from podkiln.config.cli_args import ReadFlag  # noqa: E402
from podkiln.errors import PodkilnError, UsageError  # noqa: E402
from podkiln.render import flags_json  # noqa: E402

MIB = 1024
RAMS_GB = (4, 12, 16, 24, 32, 61, 96, 127, 128, 256)
ARITIES = {None: "one", "?": "optional", "*": "any", "+": "some"}
# Runs the release's own parser on each line of arguments that comes in as JSON.
PARSE = """
import contextlib, io, json, runpy, sys
sys.path.insert(0, sys.argv[1])
file, lines = sys.argv[1] + "/comfy/cli_args.py", json.load(sys.stdin)
try:
    import comfy.options
    comfy.options.enable_args_parsing()
except ImportError:
    pass
for line in lines:
    sys.argv = ["main.py", *line]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            runpy.run_path(file)
    except SystemExit:
        print(json.dumps([line, said.getvalue().strip().splitlines()[-1]]))
"""


def say(line: str) -> None:
    """Write a line to stdout."""
    sys.stdout.write(f"{line}\n")


def choices(release: str, folder: Path) -> tuple[int, list[list[str]]]:
    """Return how many pods were asked for, and the distinct command lines that they would have."""
    described = variant.load("lazy")
    common = list(described.spec.runtime.comfyui.arguments)
    (folder / "user").mkdir()  # the parser looks whether the folder is there, and a pod makes it
    data = flags_json.to_json(release, common, folder=folder, workspace=str(folder))
    cards = [
        0,
        *(gb * MIB for gb in (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141, 192)),
        23034,
        81559,
    ]
    modes = [None, *(mode["mode"] for mode in data["memory_modes"])]
    rams = [(None, None), *((gb * MIB, host) for gb in RAMS_GB for host in (None, 2048 * MIB))]
    tiers = [None, *data["tiers"]]
    asked = [
        *itertools.product(cards, rams, modes, data["profiles"], [None]),
        *itertools.product(cards[1:], rams[:1], [None], data["profiles"], tiers),
    ]
    found: dict[tuple[str, ...], None] = {}
    for card, ram, mode, profile, tier in asked:
        decision = flags_json.preview(
            data,
            vram_mib=card,
            ram_mib=ram[0],
            host_ram_mib=ram[1],
            memory_mode=mode,
            profile=profile,
            tier=tier,
        )
        found[tuple(decision.args)] = None
    return len(asked), [list(each) for each in found]


def refused_by_tree(tree: Path, lines: list[list[str]]) -> list[Any]:
    """Return the command lines that a tree's own parser refuses, each with what it says."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", PARSE, str(tree.resolve())],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(each) for each in done.stdout.splitlines()]


def refused_by_list(rows: list[dict[str, Any]], lines: list[list[str]]) -> list[Any]:
    """Return the same for a parser that is made from a list of flags."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    groups: dict[str, Any] = {}
    for row in rows:
        owner: Any = parser
        if row["group"]:
            owner = groups.setdefault(row["group"], parser.add_mutually_exclusive_group())
        if row["arg"] == "store_true":
            owner.add_argument(row["name"], action="store_true")
        else:
            kind = {"int": int, "float": float}.get(row["arg"]["type"], str)
            action = "append" if "Append" in row["arg"]["action"] else "store"
            owner.add_argument(
                row["name"], nargs=row["arg"]["nargs"], type=kind, choices=row["choices"], action=action
            )
    found = []
    for line in lines:
        try:
            _, rest = parser.parse_known_args(line)
            if rest:
                found.append((line, f"unrecognized arguments: {rest}"))
        except (argparse.ArgumentError, SystemExit) as refused:
            found.append((line, str(refused)))
    return found


def flag_of(row: dict[str, Any]) -> ReadFlag:
    """Return a flag of such a list as it is read off a tree."""
    if row["arg"] == "store_true":
        return ReadFlag(row["name"], 0, group=row["group"])
    kind, action = row["arg"]["type"] or "str", row["arg"]["action"]
    own = action not in {"_StoreAction", "_AppendAction", "EnumAction"}
    return ReadFlag(
        row["name"],
        0,
        arity=ARITIES[row["arg"]["nargs"]],
        type=kind if kind in {"str", "int", "float"} else "folder" if "directory" in kind else "str",
        choices=tuple(map(str, row["choices"] or ())),
        group=row["group"],
        repeat=action == "_AppendAction",
        action=action if own else None,
    )


def check(name: Path, *, is_list: bool, folder: Path) -> bool:
    """Describe one release in a folder and try its choices. Returns whether its parser takes all of them."""
    if is_list:
        data = json.loads(name.read_text(encoding="utf-8"))
        version, flags = data["version"].split()[0].replace(".x", ""), tuple(map(flag_of, data["flags"]))
    else:
        source = comfyui_source.read(name)
        version, flags = source.version, source.flags
        (folder / f"folders-{version}.yaml").write_text(
            release_text.folders(release_text.Pin(version, "", "0" * 40, ""), source.folders),
            encoding="utf-8",
        )
    pin = release_text.Pin(version, "https://example.com/x", "0" * 40, "0" * 40)
    releases.flags_path(version, folder).write_text(release_text.flags(pin, flags), encoding="utf-8")
    problems = comfyui_flags.check(version, folder, comfyui_flags.DIRECTORY)[1]
    for problem in problems:
        say(f"{version}: {problem}")
    if problems:
        return False
    count, lines = choices(version, folder)
    refused = refused_by_list(data["flags"], lines) if is_list else refused_by_tree(name, lines)
    for line, said in refused:
        say(f"{version}: {' '.join(line)}: {said}")
    left_out = comfyui_flags.outdated("0.33.0", version)
    say(
        f"{version}: {len(flags)} flags; {count} pods, {len(lines)} command lines, {len(refused)} refused; "
        f"{len(left_out)} rules left out."
    )
    return not refused


def main() -> int:
    """Check the releases that are named; return 1 where one refuses a choice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("trees", nargs="*", type=Path, metavar="TREE")
    parser.add_argument("--flags", action="append", default=[], type=Path, metavar="FILE")
    given = parser.parse_args()
    if not given.trees and not given.flags:
        raise UsageError("Name a source tree, or a list of flags.")
    good = True
    for name, is_list in [*((tree, False) for tree in given.trees), *((file, True) for file in given.flags)]:
        with tempfile.TemporaryDirectory(prefix="podkiln-release-") as folder:
            try:
                good &= check(name, is_list=is_list, folder=Path(folder))
            except PodkilnError as failed:
                say(f"{name}: {failed}")
                good = False
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
