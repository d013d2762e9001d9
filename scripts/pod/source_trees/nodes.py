"""Fetch what custom nodes need and no image holds: their own files, and code that they import.

Which ones is in decision.json; what they are to the last byte in the image's nodes.json. What fails costs its
node alone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from pod.net.transfer_policy import TransferPolicy
from pod.source_trees import leftovers
from pod.source_trees.fetch import SourceTreeError, SourceTrees
from pod.source_trees.source_tree import SourceTree
from pod.util import env, files
from pod.util.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

FILE = "nodes.json"  # in the image; in the run folder what became of them
KEPT = ".podkiln/nodes"  # on the volume
ARCHIVES = "archives"  # in the local folder, where the volume cannot be written
# The boot waits for this: a host that does not answer must not hold it up for long.
TRIES, LONGEST_WAIT, LONGEST_TOTAL = 5, 30.0, 90.0  # for each tree
LONGEST = 300.0  # seconds for all of them


@dataclass(frozen=True)
class _Wanted:
    """One tree, whose it is, and where it goes."""

    node: str
    title: str
    source: SourceTree
    target: Path


def fetch(environ: Mapping[str, str], say: Callable[[str], None]) -> bool:
    """Fetch all that was decided; return whether all of it is there. Raises PodError for a damaged image."""
    run = Path(environ.get("PODKILN_RUN") or "/run/podkiln")
    root = Path(environ.get("PODKILN_ROOT") or "/opt/podkiln")
    decision = files.read_json(run / "decision.json", dict, "start the pod again")
    known = files.read_image_data(root / FILE, lambda data: {each["id"]: each for each in data["nodes"]})
    volume, all_wanted, told = decision["volume"], [*_wanted(decision, known)], []
    leftovers.clear(Path(volume["local"]), [each.target for each in all_wanted])
    deadline = time.monotonic() + LONGEST
    for wanted in all_wanted:
        message, good = _one(wanted, volume, environ, say, deadline)
        say(f"{wanted.title} {message}.")
        told.append({"node": wanted.node, "commit": wanted.source.commit, "good": good, "message": message})
    files.write_json(run / FILE, {"schema": 1, "nodes": told})
    for kept in _kept(volume):
        leftovers.expire(kept)
    return all(each["good"] for each in told)


def _wanted(decision: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[_Wanted]:
    local = decision["volume"]["local"]
    for choice in decision["nodes"]:
        if not choice["fetch"]:
            continue
        node = known[choice["id"]]
        if choice["loaded"] and not node["included"]:  # in the place of one of the user's own, its code alone
            target = Path(local, "nodes", node["folder"])
            yield _Wanted(node["id"], f"custom node {node['id']}", SourceTree.from_json(node), target)
        for code in node["code"]:
            if code["folder"] is None:
                target = Path(local, "code", f"{node['id']}-{code['name']}")
                title = f"the code {code['name']} of custom node {node['id']}"
                yield _Wanted(node["id"], title, SourceTree.from_json(code), target)


def _one(
    wanted: _Wanted,
    volume: Mapping[str, Any],
    environ: Mapping[str, str],
    say: Callable[[str], None],
    deadline: float,
) -> tuple[str, bool]:
    """Fetch one; return the rest of the sentence about it, and whether it is there."""
    trees = SourceTrees(
        [place / wanted.node for place in _kept(volume)],
        env.endpoint("GITHUB_ENDPOINT", environ.get("GITHUB_ENDPOINT"), env.GITHUB),
        _policy(environ),
        lambda text: say(f"{wanted.title}: {text}."),
        deadline=deadline,
    )
    commit = wanted.source.commit[:12]
    try:
        fetched = trees.get(wanted.source, wanted.target)
    except SourceTreeError as failed:
        return f"will not load: what {wanted.source.repo} has at {commit} {failed}", False
    if fetched:
        return f"is fetched from {wanted.source.repo} at {commit}", True
    return f"is there at {commit}, kept from an earlier start", True


def _kept(volume: Mapping[str, Any]) -> list[Path]:
    """Return where archives may lie, a folder a node: on the volume, unless it hangs, and in here."""
    roots = [volume["workspace"], volume["root"]] if volume["responsive"] else []
    places = [f"{root.rstrip('/')}/{KEPT}" for root in dict.fromkeys(roots)]
    return [Path(place) for place in (*places, f"{volume['local']}/{ARCHIVES}")]


def _policy(environ: Mapping[str, str]) -> TransferPolicy:
    return TransferPolicy(
        tries=env.number("PODKILN_FETCH_TRIES", environ.get("PODKILN_FETCH_TRIES"), TRIES),
        retry_after_limit=LONGEST_WAIT,
        wait_limit=LONGEST_TOTAL,
    )
