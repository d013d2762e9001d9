"""What ComfyUI answers, read without trust: whatever it says becomes a value or one sentence.

Source of the formats: server.py, execution.py, protocol.py and main.py of ComfyUI 0.33.0. A reader here skips
what it does not know, as later versions add to their answers, and raises ComfyError where nothing is left.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from comfy.failure import FAILED, ComfyError
from pod.util import bounded_json
from pod.util.printable import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST: Final = 400  # characters of a message: torch lists each tensor that does not fit
_MOST: Final = 10_000  # files of one prompt
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4  # BinaryEventTypes of protocol.py
MOST_VALUES: Final = 500_000  # of one answer: they become a hundred megabytes
_LARGEST_METADATA: Final = 1 << 20
_HEAD: Final = 8  # bytes before a picture: the type of the message, and its format or the metadata's length
_KINDS: Final = ((b"\x89PNG\r\n\x1a\n", "png"), (b"\xff\xd8\xff", "jpg"), (b"RIFF", "webp"))


@dataclass(frozen=True)
class Output:
    """A file that a node made, as ComfyUI names it."""

    node: str
    filename: str
    subfolder: str
    type: str

    @classmethod
    def of(cls, node: str, item: Any) -> Self | None:
        """Read one of a node's files in the history; None where it is not a file."""
        if not isinstance(item, dict):
            return None
        name, folder, kind = item.get("filename"), item.get("subfolder") or "", item.get("type") or "output"
        if not isinstance(name, str) or not name or not isinstance(folder, str) or not isinstance(kind, str):
            return None
        return cls(node, name, folder, kind)

    @property
    def query(self) -> dict[str, str]:
        """What /view is asked."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


@dataclass(frozen=True)
class Problem:
    """What a run lacks in the end: a sentence without its end, and the node that it is about.

    `raised`: ComfyUI's own words of it, where a node raised.
    """

    says: str
    node: str | None = None
    stops: tuple[str, ...] = ()  # outputs that are not made because of it
    exit_code: int = FAILED
    raised: dict[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass
class Outcome:
    """How a prompt ended. It succeeded when there are no problems.

    `texts`: what nodes showed as text; `record`: its entry in the history, for whoever reads more of it.
    """

    prompt_id: str
    outputs: list[Output] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Event:
    """A text message of the websocket."""

    kind: str
    data: dict[str, Any]

    @property
    def node(self) -> str | None:
        """The node that it is about, as the workflow has it; one made by another node stands behind that."""
        for key in ("display_node", "node"):
            if isinstance(found := self.data.get(key), str):
                return found
        return None

    @property
    def is_last(self) -> bool:
        """Whether it is the last of a prompt (prompt_worker in main.py)."""
        return self.kind == "executing" and "node" in self.data and self.data["node"] is None


@dataclass(frozen=True)
class Frame:
    """A picture of the websocket; `node` and `prompt_id` are None where it does not say them."""

    data: bytes
    suffix: str
    node: str | None = None
    prompt_id: str | None = None


def parsed(data: bytes | str) -> Any:
    """Return parsed JSON; None where it is invalid, nested too deep, or too large."""
    try:
        return bounded_json.parse(data.encode() if isinstance(data, str) else data, MOST_VALUES)
    except ValueError:
        return None


def event(text: bytes | str) -> Event | None:
    """Read a text message of the websocket; None where it is not an event."""
    value = parsed(text)
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    data = value.get("data")
    return Event(value["type"], data if isinstance(data, dict) else {})


def frame(message: bytes) -> Frame | None:
    """Read a binary message of the websocket; None where it is not a picture."""
    kind, second = (int.from_bytes(message[start : start + 4], "big") for start in (0, 4))
    if kind == _PREVIEW:
        return _frame(message[_HEAD:], {})
    if kind == _PREVIEW_WITH_METADATA:
        metadata = parsed(message[_HEAD : _HEAD + second]) if second <= _LARGEST_METADATA else None
        return _frame(message[_HEAD + second :], metadata if isinstance(metadata, dict) else {})
    return None


def _frame(data: bytes, metadata: dict[str, Any]) -> Frame | None:
    suffix = next((suffix for magic, suffix in _KINDS if data.startswith(magic)), None)
    if suffix is None:
        return None
    node = metadata.get("display_node_id") or metadata.get("node_id")
    prompt = metadata.get("prompt_id")
    return Frame(
        data,
        suffix,
        node if isinstance(node, str) else None,
        prompt if isinstance(prompt, str) else None,
    )


def is_queued(queue: Any, prompt_id: str) -> bool:
    """Tell whether a prompt is at work or waits, by the answer to /queue."""
    if not isinstance(queue, dict):
        return False
    rows = [row for key in ("queue_running", "queue_pending") for row in _list(queue.get(key))]
    return any(isinstance(row, list) and row[1:2] == [prompt_id] for row in rows)


def refusal(answer: Any, status: int) -> str:
    """Put the error of an answer to /prompt, and those of single nodes, into words."""
    if not isinstance(answer, dict):
        return f"it answered {status}"
    error = answer.get("error")
    message = error.get("message") if isinstance(error, dict) else error
    said = [shown(message, _LONGEST)] if message else []
    said += [problem.says for problem in refused(answer)]
    return "; ".join(said) or f"it answered {status}"


def refused(answer: Any) -> list[Problem]:
    """Return the nodes that an answer to /prompt refuses: the outputs that need them are not made."""
    nodes = answer.get("node_errors") if isinstance(answer, dict) else None
    if not isinstance(nodes, dict):
        return []
    found = []
    for number, node in list(nodes.items())[:100]:
        about = node if isinstance(node, dict) else {}
        said = [_error(each) for each in _list(about.get("errors"))[:20]] or ["refused"]
        stops = tuple(each for each in _list(about.get("dependent_outputs")) if isinstance(each, str))
        needs = shown(", ".join(each for each in stops if each != number))
        so = f"; so nothing comes out of node {needs}" if needs else ""
        name = f"node {shown(number, 40)} ({shown(about.get('class_type'), 80)})"
        found.append(Problem(f"{name}: {'; '.join(said)}{so}", number, stops))
    return found


def _error(each: Any) -> str:
    if not isinstance(each, dict):
        return shown(each, _LONGEST)
    details = f" ({shown(each['details'], _LONGEST)})" if each.get("details") else ""
    return f"{shown(each.get('message'), _LONGEST)}{details}"


def outcome(prompt_id: str, record: Any) -> Outcome:
    """Read an entry of the history. What came out before a failure is there too. Raises ComfyError."""
    if not isinstance(record, dict) or not isinstance(record.get("outputs", {}), dict):
        raise ComfyError("ComfyUI's history has no entry of the prompt that can be read.", FAILED)
    found = Outcome(prompt_id, record=record)
    status = record.get("status")
    status = status if isinstance(status, dict) else {}
    if status.get("status_str") != "success":
        found.problems.append(_failure(status.get("messages")))
    for node, kind, items in _shown_by_nodes(record.get("outputs", {})):
        if kind == "text":
            found.texts[node] = [_text(item) for item in items]
        else:
            found.outputs += [output for item in items if (output := Output.of(node, item))]
    if len(found.outputs) > _MOST:
        raise ComfyError(
            f"ComfyUI names {len(found.outputs)} files, and more than {_MOST} are not fetched.", FAILED
        )
    return found


def _shown_by_nodes(outputs: dict[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    for node, kinds in outputs.items():
        for kind, items in kinds.items() if isinstance(kinds, dict) else ():
            if isinstance(items, list):
                yield node, kind, items
            elif kind == "text" and isinstance(items, str):
                yield node, kind, [items]


def _text(item: Any) -> str:
    try:
        return item if isinstance(item, str) else json.dumps(item)
    except RecursionError:
        return "…"


def _failure(messages: Any) -> Problem:
    for message in _list(messages):
        kind, data = message if isinstance(message, list) and len(message) == 2 else (None, None)  # noqa: PLR2004
        if not isinstance(data, dict):
            continue
        number = data.get("node_id")
        node = f"node {shown(number, 40)} ({shown(data.get('node_type'), 80)})"
        about = number if isinstance(number, str) else None
        if kind == "execution_error":
            said = shown(" ".join(str(data.get("exception_message", ""))[: 2 * _LONGEST].split()), _LONGEST)
            says = f"the prompt failed in {node}: {shown(data.get('exception_type'), 80)}: {said}"
            return Problem(says, about, raised=data)
        if kind == "execution_interrupted":
            return Problem(f"the prompt was interrupted{f' in {node}' if about else ''}", about)
    return Problem("the prompt failed; ComfyUI's log says why")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
