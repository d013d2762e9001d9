"""Models that are on their way when a job comes: the job waits for those that its workflow names.

What the start fetches is in fetch.json of the run folder (pod/downloads/progress.py). ComfyUI sees new files
without a restart; asked before they are there, it would refuse the workflow. A fetch that was killed, for
lack of memory perhaps, is begun again by start.sh, after 25 s at most: its files are still on their way.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from pod.downloads import status
from pod.downloads.states import FOR_GOOD, OVER, State
from pod.util.files import recall
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from comfy.workflow import Nodes

_PAUSE: Final = 0.5  # seconds between two looks
_MOST_SAID: Final = 5


async def wait(nodes: Nodes, run: Path, report: Callable[[dict[str, Any]], None]) -> None:
    """Wait until nothing that a workflow names is on its way any more, and say how far it is."""
    words = {each.replace("\\", "/") for each in _texts(nodes)}
    while files := [each for each in _on_their_way(run) if _name(each) in words]:
        report(
            {
                "type": "progress",
                "percent": 0,
                "node": None,
                "value": sum(each.get("bytes") or 0 for each in files),
                "max": sum(each.get("total") or 0 for each in files),
                "fetching": [shown(_name(each)) for each in files[:_MOST_SAID]],
            }
        )
        await asyncio.sleep(_PAUSE)


def failed(nodes: Nodes, run: Path) -> list[str]:
    """Return a sentence for each file that a workflow names and that could not be fetched."""
    words = {each.replace("\\", "/") for each in _texts(nodes)}
    return [
        f"{shown(_name(each))} could not be fetched: {shown(each.get('error') or 'the log says why', 400)}"
        for each in _files(recall(run / status.BOOT))
        if each.get("state") == State.FAILED and _name(each) in words
    ]


def of_model(model: str, run: Path) -> str | None:
    """Return why a model that the start fetches will not come; None where it may, or nothing is known yet."""
    record = recall(run / status.BOOT)
    if not record or status.runs(record) or status.comes_again(run, record):
        return None
    errors = [each.get("error") for each in _files(record) if each.get("model") == model]
    why = next(filter(None, errors), None)
    return (
        f"could not be fetched: {shown(why, 400)}" if why else "is missing, and nothing fetches it any more"
    )


def _on_their_way(run: Path) -> list[dict[str, Any]]:
    record = recall(run / status.BOOT)
    if status.runs(record):
        over = OVER
    elif status.comes_again(run, record):
        over = FOR_GOOD
    else:
        return []
    return [each for each in _files(record) if each.get("state") not in over]


def _files(record: dict[str, Any]) -> list[dict[str, Any]]:
    rows = record.get("files")
    return [each for each in rows if isinstance(each, dict)] if isinstance(rows, list) else []


def _name(row: dict[str, Any]) -> str:
    """Return a file as nodes name it: by its path below the folder of its kind."""
    return str(row.get("file")).partition("/")[2]


def _texts(nodes: Nodes) -> Iterator[str]:
    for node in nodes.values():
        for value in node.get("inputs", {}).values():
            if isinstance(value, str):
                yield value
