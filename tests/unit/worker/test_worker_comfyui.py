"""What worker-comfyui 5.8.5 answers to the requests of its documents, replayed: the same, or what is said."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from images import ROOT
from registries import free_port
from servers.comfyui import ComfyUI, Faults

from worker import command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RECORDED: dict[str, Any] = yaml.safe_load((ROOT / "tests/fixtures/worker_comfyui.yaml").read_text())
ENVIRONMENT = (ROOT / "docs/reference/environment.md").read_text()


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """An S3 that takes everything."""

    class Answer(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def faults(given: dict[str, Any]) -> Faults:
    """Return how ComfyUI is, by a row's `comfyui`."""
    answers = {
        path: (each["status"], {"Content-Type": "application/json"}, json.dumps(each["body"]).encode())
        for path, each in given.get("answers", {}).items()
    }
    own = {name: value for name, value in given.items() if name not in ("away", "answers")}
    return Faults(**own, answers=answers)


def differences(found: Any, wanted: Any, more: list[str], where: str = "answer") -> list[str]:
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


def answered(row: dict[str, Any], server: ComfyUI, folder: Path, bucket: str) -> dict[str, Any]:
    variables = {**row.get("variables", {}), "PODKILN_RUN": str(folder), "PODKILN_LOCAL": str(folder)}
    if "BUCKET_ACCESS_KEY_ID" in variables:
        variables["BUCKET_ENDPOINT_URL"] = bucket
    worker = command.worker(variables)
    place = replace(worker.place, server=server.url, patience=20.0)
    if "away" in row.get("comfyui", {}):
        place = replace(place, server=f"http://127.0.0.1:{free_port()}", patience=0.2)
    return asyncio.run(replace(worker, place=place).handle({"id": "job-1", **row["job"]}))


@pytest.mark.parametrize("row", RECORDED["requests"], ids=lambda row: row["what"])
def test_a_request_of_its_documents_is_answered_as_there_or_better(
    row: dict[str, Any], bucket: str, tmp_path: Path
) -> None:
    with ComfyUI(faults(row.get("comfyui", {}))) as server:
        found = answered(row, server, tmp_path, bucket)
        assert differences(found, row.get("ours", row["theirs"]), RECORDED["more"]["answer"]) == []
        gets = row.get("gets", {})
        if "files" in gets:
            assert sorted(server.inputs) == [f"/{name}" for name in gets["files"]]
        if "extra_data" in gets:
            assert server.prompts[-1]["extra_data"] == gets["extra_data"]


def test_what_is_recorded_is_whole() -> None:
    rows = RECORDED["requests"]
    assert [row["what"] for row in rows if "ours" in row and "why" not in row] == []
    assert [row["what"] for row in rows if row.get("ours") == row["theirs"]] == []
    same = [names for names, here in RECORDED["variables"].items() if here.startswith("the same")]
    assert [name for names in same for name in names.split(", ") if f"`{name}`" not in ENVIRONMENT] == []
