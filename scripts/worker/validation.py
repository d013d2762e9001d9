"""Why ComfyUI refuses a workflow, under worker-comfyui's head: a bullet for each error. Pure.

Source: validate_prompt of execution.py and post_prompt of server.py of ComfyUI 0.33.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from comfy import answers
from pod.util.printable import shown
from worker import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

INVALID: Final = 400
"""The status of an answer to /prompt that says what is wrong with a workflow; others are failures."""
_MOST: Final = 100  # nodes, errors of one, names of checkpoints
_LONGEST: Final = 400  # characters


def refusal(answer: Any) -> str | None:
    """Return what a client is told of an answer to /prompt; None where it says nothing that can be used."""
    if not isinstance(answer, dict):
        return None
    nodes = answer.get("node_errors")
    found = list(_errors(nodes)) if isinstance(nodes, dict) else []
    lines = [f"• {_bullet(number, error)}" for number, error in found]
    if not lines:
        lines = [f"• {answers.refusal(answer, INVALID)}"]
    if names := next((each for _, error in found if (each := _checkpoints(error)) is not None), None):
        lines.append(messages.CHECKPOINTS.format(names=names))
    return "\n".join((messages.INVALID_WORKFLOW, *lines))


def _errors(nodes: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, about in list(nodes.items())[:_MOST]:
        errors = about.get("errors") if isinstance(about, dict) else None
        for error in errors[:_MOST] if isinstance(errors, list) else ():
            if isinstance(error, dict):
                yield number, error


def _bullet(number: str, error: dict[str, Any]) -> str:
    details = f" ({shown(error['details'], _LONGEST)})" if error.get("details") else ""
    return messages.INVALID_NODE.format(
        node=shown(number, 40),
        kind=shown(error.get("type"), 80),
        message=f"{shown(error.get('message'), _LONGEST)}{details}",
    )


def _checkpoints(error: dict[str, Any]) -> str | None:
    """Return the checkpoints that there are, where an error is that another was asked for."""
    about = error.get("extra_info")
    if not isinstance(about, dict) or about.get("input_name") != "ckpt_name":
        return None
    names = _options(about.get("input_config"))
    return None if names is None else ", ".join(shown(each, 100) for each in names[:_MOST]) or "none"


def _options(config: Any) -> list[Any] | None:
    """Read what an input may be: [[names], …] or, of newer nodes, ["COMBO", {"options": [names]}]."""
    if not isinstance(config, list) or not config:
        return None
    if isinstance(config[0], list):
        return config[0]
    about = config[1] if len(config) > 1 else None
    options = about.get("options") if isinstance(about, dict) else None
    return options if isinstance(options, list) else None
