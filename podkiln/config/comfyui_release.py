"""What a description that names a ComfyUI release alone stands for: commit, tree and the name of its lock.

`runtime: {comfyui: 0.32.0}`, or `version` without `commit`, is filled in from the release's own file before
the description is laid over its parent's: so none of the parent's release is left in it.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from podkiln.config import releases
from podkiln.util.quoting import cut

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.document import Document
    from podkiln.errors import DescriptionError

_KEY = ("runtime", "comfyui")


def expand(
    file: Document, data: dict[str, Any], flags: Path, child: Document, *, replaced: bool = False
) -> tuple[dict[str, Any], Path]:
    """Return a description's data with the release that it names written out, and where its files lie.

    Args:
        file: The description. A release beside `child` goes before one beside it, and a shipped one comes
            last.
        data: What it says; returned as it is where it names no release.
        flags: Where the files of the parent's release lie.
        child: The description that is built, beside which `./build.py comfyui --variant` writes.
        replaced: Whether another release takes its place, so that it need not be described.

    Raises DescriptionError: there is no such release, or its file is wrong.
    """
    runtime = data.get("runtime")
    named = runtime.get("comfyui") if isinstance(runtime, dict) else None
    if isinstance(named, float | int) and not isinstance(named, bool):
        raise file.error(_KEY, f"expected a whole release such as 0.33.0, and {named} is a number.")
    given = {"version": named} if isinstance(named, str) else named
    release = given.get("version") if isinstance(given, dict) else None
    if not isinstance(runtime, dict) or not isinstance(given, dict) or not isinstance(release, str):
        return data, flags
    beside = dict.fromkeys(each.path.parent / releases.FOLDER for each in (child, file))
    folders = [*beside, releases.SHIPPED]
    found = releases.find(release, folders)
    if "commit" in given:
        return data, found or releases.SHIPPED
    if found is None and replaced:
        rest = {key: value for key, value in given.items() if key != "version"}
        return {**data, "runtime": {**runtime, "comfyui": rest}}, flags
    if found is None:
        raise _unknown(file, release, folders, child)
    described, _ = releases.load(release, found)
    filled = {"version": release, "repo": described.repo, "commit": described.commit, "tree": described.tree}
    # None: of the parent's release, and to be made anew.
    whole = {"name": None, **runtime, "comfyui": {**filled, **given}}
    return {**data, "runtime": whole}, found


def _unknown(file: Document, release: str, folders: list[Path], child: Document) -> DescriptionError:
    shipped = child.path.parent.resolve() == releases.SHIPPED.parent
    option = "" if shipped else f" --variant {shlex.quote(str(child.path))}"
    missing = releases.unknown(release, folders, option=option)
    return file.error(_KEY, cut(str(missing)), hint=missing.hint)
