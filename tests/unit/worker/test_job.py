"""One job on a ComfyUI that answers as the real one does, and fails as it may."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from registries import free_port
from servers.comfyui import MISSING, PNG, ComfyUI, Faults
from unit.test_contract_comfyui import SAVED, Server, root

from worker import fetching, job, request, web
from worker.errors import JobError
from worker.job import Place

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["root"]  # a fixture: the folder that the contract server needs

WORKFLOW: dict[str, Any] = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "cat.png"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 1, "image": ["1", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
    "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    "6": {"class_type": "ShowText", "inputs": {}},
}
CAT = {"name": "cat.png", "image": base64.b64encode(PNG).decode()}


def run(
    place: Place, report: Callable[[dict[str, Any]], None] = lambda _: None, **given: Any
) -> dict[str, Any]:
    asked = request.parse({"workflow": WORKFLOW, **given})
    return asyncio.run(job.run(asked, place, report))


def failure(place: Place, **given: Any) -> dict[str, Any]:
    with pytest.raises(JobError) as failed:
        run(place, **given)
    return failed.value.answer


def content(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["data"])


def test_pictures_go_in_and_what_comes_out_is_the_answer(comfyui: ComfyUI, place: Place) -> None:
    answer = run(place, images=[CAT], comfy_org_api_key="comfyui-key")
    assert comfyui.inputs == {"/cat.png": PNG}
    sent = comfyui.prompts[0]
    assert (sent["prompt"], sent["extra_data"]) == (WORKFLOW, {"api_key_comfy_org": "comfyui-key"})
    assert [(each["filename"], each["node"]) for each in answer["images"]] == [("SaveImage_4.png", "4")]
    assert content(answer["images"][0]) == PNG + b"night"
    assert answer["texts"] == [{"node": "6", "text": "seen"}]
    assert "errors" not in answer


def test_the_workers_own_key_is_sent_where_a_job_brings_none(comfyui: ComfyUI, place: Place) -> None:
    run(replace(place, api_key="of the worker"))
    run(replace(place, api_key="of the worker"), comfy_org_api_key="of the job")
    run(place)
    assert [each.get("extra_data", {}).get("api_key_comfy_org") for each in comfyui.prompts] == [
        "of the worker",
        "of the job",
        None,
    ]


def test_a_picture_of_the_same_name_takes_the_place_of_an_earlier_one(comfyui: ComfyUI, place: Place) -> None:
    comfyui.inputs["/cat.png"] = b"of another job"
    run(place, images=[CAT])
    assert comfyui.inputs == {"/cat.png": PNG}


def test_pictures_of_the_websocket_are_in_the_answer(comfyui: ComfyUI, place: Place) -> None:
    nodes = {"7": {"class_type": "SaveImageWebsocket", "inputs": {}}}
    images = run(place, workflow=nodes)["images"]
    assert [each["filename"] for each in images] == [
        "SaveImageWebsocket_7_00001_.png",
        "SaveImageWebsocket_7_00002_.png",
    ]
    assert content(images[1]) == PNG + b"\1"


def test_more_of_them_than_an_answer_can_hold_end_the_prompt(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.pictures = 50
    nodes = {"7": {"class_type": "SaveImageWebsocket", "inputs": {}}}
    said = failure(replace(place, largest=3000), workflow=nodes)["error"]
    assert said.startswith("The results of this job are larger than 0.003 MB as base64")
    assert comfyui.cancelled == [comfyui.prompts[0]["prompt_id"]]


def test_how_far_a_job_is_is_told(comfyui: ComfyUI, place: Place) -> None:
    told: list[dict[str, Any]] = []
    run(place, told.append)
    assert [each["node"] for each in told] == ["1", "3", "3", "4", "5", "6"]
    assert [each["percent"] for each in told] == [0, 20, 20, 40, 60, 80]


# --- Files by their address


def test_a_file_is_fetched_from_its_address(comfyui: ComfyUI, place: Place) -> None:
    url = f"{comfyui.url}/view?filename=dog.png&subfolder=signed"
    run(replace(place, private_urls=True), images=[{"name": "cat.png", "url": url}])
    assert comfyui.inputs == {"/cat.png": PNG + b"signed"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_an_address_that_is_not_public_is_not_asked(comfyui: ComfyUI, place: Place, host: str) -> None:
    url = f"http://{host}:{comfyui.url.rpartition(':')[2]}/view?filename=a&subfolder="
    assert failure(place, images=[{"name": "cat.png", "url": url}, CAT]) == {
        "error": "Failed to upload one or more input images",
        "details": ["cat.png: its address is not one of the public internet."],
    }
    assert comfyui.prompts == []


def test_a_redirect_to_one_that_is_not_is_not_followed(
    comfyui: ComfyUI, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    there = comfyui.url.replace("127.0.0.1", "127.0.0.2")
    comfyui.faults.answers = {"/away": (302, {"Location": f"{there}/view?filename=a&subfolder="}, b"")}
    said = failure(place, images=[{"name": "cat.png", "url": f"{comfyui.url}/away"}])
    assert said["details"] == ["cat.png: its address is not one of the public internet."]
    assert comfyui.viewed == []


# --- What goes wrong


def test_each_picture_that_cannot_be_used_is_named(place: Place) -> None:
    pictures = [CAT, {"name": "dog.png", "image": "no base64!"}, {"name": "cow.png", "image": ""}]
    said = failure(place, images=pictures)
    assert said["error"] == "Failed to upload one or more input images"
    assert [each.partition(":")[0] for each in said["details"]] == ["dog.png", "cow.png"]


def test_a_node_that_is_not_there_is_named(place: Place) -> None:
    nodes = {"7": {"class_type": "Gone", "inputs": {}}}
    assert failure(place, workflow=nodes)["error"] == (
        "Workflow validation failed:\n• Node 'Gone' not found. The custom node may not be installed."
    )


def test_each_input_that_does_not_fit_is_named(place: Place) -> None:
    nodes = {"3": {"class_type": "KSampler", "inputs": {"seed": "none"}}}
    assert failure(place, workflow=nodes)["error"] == (
        "Workflow validation failed:\n"
        "• Node 3 (invalid_input_type): Failed to convert an input value to a INT value (seed, none)"
    )


def test_what_comes_out_of_a_workflow_that_is_refused_in_part_is_kept(place: Place) -> None:
    nodes = {
        **WORKFLOW,
        "7": {"class_type": "LoadImage", "inputs": {"image": MISSING}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0]}},
    }
    answer = run(place, workflow=nodes)
    assert [each["filename"] for each in answer["images"]] == ["SaveImage_4.png"]
    assert len(answer["errors"]) == 1
    assert answer["errors"][0].startswith("Node 7 (LoadImage): Invalid image file")


def test_a_node_that_raises_is_said_beside_what_came_out_before(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.error = "out of memory"
    answer = run(place)
    said = "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: out of memory"
    assert (len(answer["images"]), answer["errors"]) == (1, [said])


def test_a_node_that_raises_before_anything_came_out_fails_the_job(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.error = "out of memory"
    nodes = {"3": {"class_type": "KSampler", "inputs": {}}}
    said = "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: out of memory"
    assert failure(place, workflow=nodes) == {"error": "Job processing failed", "details": [said]}


def test_a_file_that_cannot_be_had_costs_no_other(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.images = [{"filename": name, "type": "output"} for name in ("gone.png", "there.png")]
    answer = run(place)
    assert [each["filename"] for each in answer["images"]] == ["there.png"]
    assert answer["errors"] == ["ComfyUI does not serve gone.png (404)."]


def test_each_file_is_asked_for_once(comfyui: ComfyUI, place: Place) -> None:
    run(place)
    assert comfyui.viewed == ["SaveImage_4.png"]


def test_a_result_that_the_platform_would_lose_is_said(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.images = [{"filename": "trickle.png", "type": "output"}]  # it never ends
    said = failure(replace(place, largest=1300))["error"]
    assert said.startswith(
        "The results of this job are larger than 0.0013 MB as base64, which RunPod does not"
    )


@pytest.mark.parametrize("faults", [Faults(drop_socket=True), Faults(silent=True)], ids=["cut", "silent"])
def test_without_a_websocket_the_history_is_asked(comfyui: ComfyUI, place: Place, faults: Faults) -> None:
    comfyui.faults = faults
    assert len(run(place)["images"]) == 1


def test_a_prompt_that_comfyui_forgot_is_not_waited_for(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.forget = True
    assert failure(place)["error"].startswith("ComfyUI has neither run nor kept the prompt")


def test_a_comfyui_that_never_serves_is_said(place: Place) -> None:
    port = free_port()
    nobody = replace(place, server=f"http://127.0.0.1:{port}", patience=0.2)
    said = f"ComfyUI server (127.0.0.1:{port}) not reachable after multiple retries."
    assert failure(nobody) == {"error": said}


def test_a_comfyui_that_starts_late_is_waited_for(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_BOOT_SECONDS", "1")
    server = Server(root, f"--output-directory={tmp_path}")
    try:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path)
        assert [each["filename"] for each in run(place, workflow=SAVED)["images"]] == ["lake_00001_.png"]
    finally:
        server.__exit__()


def test_where_comfyui_is_may_be_decided_while_a_job_waits(
    comfyui: ComfyUI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODKILN_RUN", str(tmp_path))
    words = f"--listen=127.0.0.1\0--port={comfyui.url.rpartition(':')[2]}\0"

    async def work() -> dict[str, Any]:
        asked = request.parse({"workflow": WORKFLOW})
        task = asyncio.create_task(job.run(asked, Place(run=tmp_path, patience=20.0), lambda _: None))
        await asyncio.sleep(0.2)
        assert not task.done()
        (tmp_path / "comfyui.args").write_text(words)
        return await task

    assert len(asyncio.run(work())["images"]) == 1


def test_a_model_that_is_on_its_way_is_waited_for(
    comfyui: ComfyUI, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_PAUSE", 0.01)
    row = {"model": "x", "file": "checkpoints/sub/big.safetensors", "state": "fetching", "bytes": 5}
    other = {**row, "file": "checkpoints/other.safetensors"}
    record = {"state": "running", "pid": os.getpid(), "files": [{**row, "total": 10}, other]}
    nodes = {**WORKFLOW, "3": {"class_type": "KSampler", "inputs": {"name": "sub\\big.safetensors"}}}
    path, kept = place.run / "fetch.json", place.run / "fetch.kept"
    killed = json.dumps({**record, "pid": 2**22 + 1})  # above the kernel's largest
    path.write_text(killed)
    kept.touch()  # start.sh begins it again
    told: list[dict[str, Any]] = []

    def report(message: dict[str, Any]) -> None:
        told.append(message)
        assert "fetching" not in message or comfyui.prompts == [], "ComfyUI would refuse it"
        if len(told) == 2:
            path.write_text(json.dumps(record))
        if len(told) == 4:
            path.write_text(json.dumps({**record, "files": [{**row, "state": "fetched"}, other]}))

    assert len(run(place, report, workflow=nodes)["images"]) == 1
    assert (
        told[0]
        == told[3]
        == {
            "type": "progress",
            "percent": 0,
            "node": None,
            "value": 5,
            "max": 10,
            "fetching": ["sub/big.safetensors"],
        }
    )
    path.write_text(killed)
    kept.unlink()
    run(place, workflow=nodes)  # nothing comes any more, so ComfyUI says what it makes of it
    path.write_text(json.dumps({"state": "failed", "files": [{**row, "state": "failed", "error": "404"}]}))
    nodes["3"]["inputs"]["seed"] = "none"
    said = failure(place, workflow=nodes)["error"]
    assert said.startswith("Workflow validation failed:")
    assert said.endswith("\nsub/big.safetensors could not be fetched: 404")


# --- What was made before


def test_an_unchanged_workflow_gives_its_result_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ComfyUI answers it from memory, with the name of the file that it made then."""
    monkeypatch.setenv("CONTRACT_CACHE", "1")
    with Server(root, f"--output-directory={tmp_path}") as server:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path)
        made = tmp_path / "night" / "lake_00001_.png"
        first, second = run(place, workflow=SAVED), run(place, workflow=SAVED)
        made.unlink()
        third = run(place, workflow=SAVED)
    assert first == second == third
    assert made.exists(), "made anew, since it was gone"


# --- Cancelled, and killed


async def cancelled(place: Place, when: Callable[[], bool], **given: Any) -> None:
    """Cancel a job as soon as `when` says so."""
    asked = request.parse({"workflow": WORKFLOW, **given})
    task = asyncio.create_task(job.run(asked, place, lambda _: None))
    async with asyncio.timeout(20):
        while not when():
            assert not task.done()
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_a_job_can_be_cancelled_while_comfyui_starts(place: Place) -> None:
    asyncio.run(cancelled(replace(place, server=f"http://127.0.0.1:{free_port()}"), lambda: True))


def test_a_job_that_is_cancelled_is_interrupted_in_comfyui(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True
    asyncio.run(cancelled(place, lambda: bool(comfyui.running)))
    assert comfyui.cancelled == [comfyui.prompts[0]["prompt_id"]]
    assert not comfyui.running


def test_a_job_can_be_cancelled_while_its_files_are_fetched(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.images = [{"filename": "trickle.png", "type": "output"}]
    asyncio.run(cancelled(place, lambda: bool(comfyui.history)))


def test_a_job_that_waits_behind_another_is_taken_out_of_the_queue(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_PROMPT_SECONDS", "60")
    with Server(root, f"--output-directory={tmp_path}") as server:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path)
        server.post({"prompt": SAVED, "prompt_id": "first"})
        asyncio.run(cancelled(place, lambda: len(server.get("/queue")["queue_pending"]) == 1, workflow=SAVED))
        queue = server.get("/queue")
        assert [row[1] for row in queue["queue_running"]] == ["first"]
        assert queue["queue_pending"] == []


def test_a_comfyui_that_is_killed_ends_the_job_with_the_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor notes how it ended; the job does not wait for the next one to start."""
    monkeypatch.setenv("CONTRACT_PROMPT_SECONDS", "60")
    with Server(root, f"--output-directory={tmp_path}") as server:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path)

        def begun(_: dict[str, Any]) -> None:
            server.process.kill()
            server.process.wait()
            notes = {"schema": 1, "restarts": [{"ended": 1.0, "why": "exit code 137, SIGKILL"}]}
            (tmp_path / "boot.json").write_text(json.dumps(notes))

        asked = request.parse({"workflow": SAVED})
        with pytest.raises(JobError) as failed:
            asyncio.run(job.run(asked, place, begun))
    assert failed.value.answer == {
        "error": "ComfyUI ended while it worked on this job: exit code 137, SIGKILL."
    }


def test_one_that_ends_behind_the_result_costs_nothing(tmp_path: Path) -> None:
    async def work() -> dict[str, Any]:
        notes = {"schema": 1, "restarts": [{"ended": 1.0, "why": "exit code 137, SIGKILL"}]}
        (tmp_path / "boot.json").write_text(json.dumps(notes))
        return {"images": []}

    assert asyncio.run(job._while_comfyui_lives(work(), tmp_path)) == {"images": []}


def test_a_comfyui_that_is_killed_and_stays_away_ends_the_job_too(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRACT_PROMPT_SECONDS", "60")
    with Server(root, f"--output-directory={tmp_path}") as server:
        place = Place(f"http://127.0.0.1:{server.port}", tmp_path)
        asked = request.parse({"workflow": SAVED})
        with pytest.raises(JobError, match=r"^HTTP communication error with ComfyUI: .* cannot be reached"):
            asyncio.run(job.run(asked, place, lambda _: server.process.kill()))


def test_jobs_beside_each_other_do_not_write_over_each_others_files(comfyui: ComfyUI, place: Place) -> None:
    """And the same file comes to the same place, so that ComfyUI remembers what it made of it."""
    dog = {**CAT, "image": base64.b64encode(b"dog").decode()}
    for picture in (CAT, dog, CAT):
        run(replace(place, apart=True), images=[picture])
    assert sorted(comfyui.inputs.values()) == sorted([PNG, b"dog"])
    used = [each["prompt"]["1"]["inputs"]["image"] for each in comfyui.prompts]
    assert used[0] == used[2] != used[1]
    assert all(each.startswith("job-files/") and each.endswith("/cat.png") for each in used)
