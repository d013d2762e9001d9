# ruff: noqa: INP001 - a script's part, beside the pages that it writes
"""The tables of docs/reference/serverless.md that say what worker-comfyui answers, and podkiln's worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from pathlib import Path

BEGIN: Final = "<!-- From tests/fixtures/worker_comfyui.yaml, by docs/generate.py: -->\n"
END: Final = "<!-- to here. -->\n"


def page(root: Path) -> str:
    """Return the page with its tables as they are recorded now."""
    text = (root / "docs" / "reference" / "serverless.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    recorded = (root / "tests" / "fixtures" / "worker_comfyui.yaml").read_text(encoding="utf-8")
    return f"{before}{BEGIN}{tables(yaml.safe_load(recorded))}{END}{after}"


def tables(recorded: dict[str, Any]) -> str:
    """Return the tables: of answers, and of variables."""
    rows = [
        f"| {each['what']} | {_answer(each['theirs'])} | {_ours(each)} |" for each in recorded["requests"]
    ]
    names = [
        f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {here} |"
        for names, here in recorded["variables"].items()
    ]
    head = ["| request | worker-comfyui 5.8.5 | podkiln |", "| --- | --- | --- |"]
    head_of_names = ["| its variable | here |", "| --- | --- |"]
    return "\n".join([*head, *rows, "", *head_of_names, *names, ""])


def _ours(row: dict[str, Any]) -> str:
    answer = _answer(row["ours"]) if "ours" in row else "the same"
    return f"{answer}: {row['why']}" if "why" in row else answer


def _answer(answer: dict[str, Any] | str) -> str:
    if isinstance(answer, str):
        return answer
    text = json.dumps(answer, ensure_ascii=False).replace("|", "\\|")
    return f"`{text}`"
