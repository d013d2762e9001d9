"""What worker-comfyui 5.8.5 answers to the requests of its documents, replayed: the same, or what is said."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from images import ROOT
from registries import free_port
from servers.comfyui import ComfyUI, Faults
from servers.put_server import accepting

from worker import command

if TYPE_CHECKING:
    from pathlib import Path

RECORDED: dict[str, Any] = yaml.safe_load((ROOT / "tests/fixtures/worker_comfyui.yaml").read_text())
ENVIRONMENT = (ROOT / "docs/reference/environment.md").read_text()


def faults(given: dict[str, Any]) -> Faults:
    """Return how ComfyUI is, by a row's `comfyui`."""
    answers = {
        path: (each["status"], {"Content-Type": "application/json"}, json.dumps(each["body"]).encode())
        for path, each in given.get("answers", {}).items()
    }
    own = {name: value for name, value in given.items() if name not in ("away", "waits", "answers")}
    return Faults(**own, answers=answers)


def differences(found: Any, wanted: Any, more: tuple[str, ...], where: str = "answer") -> list[str]:
    """Return where an answer is not as it was recorded: a sentence each."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        said = [f"{where} has {name}" for name in sorted(found.keys() - wanted.keys() - {*more})]
        said += [f"{where} lacks {name}" for name in sorted(wanted.keys() - found.keys())]
        for name in wanted.keys() & found.keys():
            said += differences(found[name], wanted[name], RECORDED["more"]["file"], f"{where}.{name}")
        return said
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = zip(found, wanted, strict=True)
        return [each for one, other in pairs for each in differences(one, other, more, where)]
    if isinstance(wanted, str) and isinstance(found, str):
        pattern = ".*".join(map(re.escape, wanted.split("…")))
        return [] if re.fullmatch(pattern, found, re.DOTALL) else [f"{where} is {found!r}, not {wanted!r}"]
    return [] if found == wanted else [f"{where} is {found!r}, not {wanted!r}"]


async def answer(row: dict[str, Any], server: ComfyUI, folder: Path, bucket: str) -> dict[str, Any]:
    about = row.get("comfyui", {})
    port = free_port() if about.keys() & {"away", "waits"} else int(server.url.rpartition(":")[2])
    variables = {**row.get("variables", {}), "PODKILN_RUN": str(folder), "PODKILN_LOCAL": str(folder)}
    if "BUCKET_ACCESS_KEY_ID" in variables:
        variables["BUCKET_ENDPOINT_URL"] = bucket
    worker = command.worker(variables)
    patience = 0.2 if "away" in about else 20.0
    place = replace(worker.place, server=f"http://127.0.0.1:{port}", patience=patience)
    if "waits" in about:
        late = asyncio.get_running_loop().call_later(0.3, lambda: ...)
        late.cancel()
    return await replace(worker, place=place).handle({"id": "job-1", **row["job"]})


@pytest.mark.parametrize("row", RECORDED["requests"], ids=lambda row: row["what"])
def test_a_request_of_its_documents_is_answered_as_there_or_better(row: dict[str, Any], tmp_path: Path) -> None:
    with ComfyUI(faults(row.get("comfyui", {}))) as server, accepting() as bucket:
        found = asyncio.run(answer(row, server, tmp_path, bucket))
        assert differences(found, row.get("ours", row["theirs"]), RECORDED["more"]["answer"]) == []
        gets = row.get("gets", {})
        if "files" in gets:
            assert sorted(server.inputs) == [f"/{name}" for name in gets["files"]]
        if "extra_data" in gets:
            assert server.prompts[-1]["extra_data"] == gets["extra_data"]
    assert ("ours" in row) <= ("why" in row), "what is answered otherwise has a reason"
