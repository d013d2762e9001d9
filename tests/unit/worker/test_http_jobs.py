"""Jobs over HTTP: RunPod's requests, names and states, one ComfyUI."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from unit.worker.http_worker import JOB, WORKFLOW, Client, eventually, run

from worker.job_file import JobFile

if TYPE_CHECKING:
    from servers.comfyui import ComfyUI

    from worker.job import Place


def names(output: dict[str, Any]) -> list[str]:
    return [each["filename"] for each in output["images"]]


async def queued(comfyui: ComfyUI, count: int) -> None:
    """Wait until ComfyUI has got so many prompts."""

    async def there() -> bool:
        return len(comfyui.prompts) == count

    await eventually(there)


@pytest.mark.parametrize("prefix", ["", "/v2/some-endpoint"])
def test_a_job_is_run_and_asked_for_as_on_runpod(place: Place, prefix: str) -> None:
    async def work(client: Client) -> None:
        begun = await client.post(f"{prefix}/run")
        assert begun == {"id": begun["id"], "status": "IN_QUEUE"}
        said = await client.until(begun["id"], "COMPLETED")
        assert await client.ask("GET", f"{prefix}/status/{begun['id']}") == (200, said)
        assert sorted(said) == ["delayTime", "executionTime", "id", "output", "status"]
        assert names(said["output"]) == ["SaveImage_4.png"]
        assert isinstance(said["delayTime"], int)
        assert said["executionTime"] >= 50

    run(place, work)


def test_a_job_is_run_while_its_client_waits(place: Place) -> None:
    async def work(client: Client) -> None:
        said = await client.post("/runsync")
        assert said["status"] == "COMPLETED"
        assert said["id"].startswith("sync-")
        assert names(said["output"]) == ["SaveImage_4.png"]
        assert await client.status(said["id"]) == said, "a while later, too"

    run(place, work)


def test_who_waits_is_told_where_the_job_is_when_the_wait_is_over(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        said = await client.post("/runsync?wait=1000")
        assert (said["status"], "output" in said) == ("IN_PROGRESS", False)
        assert await client.ask("POST", "/runsync?wait=soon", json=JOB) == (
            400,
            {"error": "wait is not a number of milliseconds."},
        )
        comfyui.faults.endless = False
        await client.until(said["id"], "COMPLETED")

    run(place, work)


def test_a_job_that_fails_says_why_beside_its_output(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.error = "out of memory"

    async def work(client: Client) -> None:
        said = await client.post("/runsync", {"input": {"workflow": {"3": WORKFLOW["3"]}}})
        assert (said["status"], said["error"]) == ("FAILED", "Job processing failed")
        assert said["output"]["details"] == [
            "Workflow execution error: Node Type: KSampler, Node ID: 3, Message: out of memory"
        ]
        said = await client.post("/runsync", {"input": None})
        assert (said["status"], said["error"], "output" in said) == ("FAILED", "Please provide input", False)

    run(place, work)


def test_one_job_runs_and_the_others_know_their_places(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        first, second, third = [(await client.post("/run"))["id"] for _ in range(3)]
        await client.until(first, "IN_PROGRESS")
        assert [(await client.status(each))["position"] for each in (second, third)] == [1, 2]
        assert (await client.ask("GET", "/health"))[1]["jobs"] == {
            "completed": 0,
            "failed": 0,
            "inProgress": 1,
            "inQueue": 2,
            "retried": 0,
        }
        comfyui.faults.endless = False
        await client.until(third, "COMPLETED")
        assert len(comfyui.prompts) == 3

    run(place, work)


def test_several_run_where_that_is_asked_for(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        numbers = [(await client.post("/run"))["id"] for _ in range(3)]
        for number in numbers[:2]:
            await client.until(number, "IN_PROGRESS")
        assert (await client.status(numbers[2]))["position"] == 1
        comfyui.faults.endless = False
        await client.until(numbers[2], "COMPLETED")

    run(place, work, concurrency=2)


def test_a_job_is_cancelled_in_each_phase(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def cancel(client: Client, number: str) -> Any:
        return await client.ask("POST", f"/cancel/{number}")

    async def work(client: Client) -> None:
        running, waiting = [(await client.post("/run"))["id"] for _ in range(2)]
        await client.until(running, "IN_PROGRESS")
        await queued(comfyui, 1)
        assert await cancel(client, waiting) == (200, {"id": waiting, "status": "CANCELLED"})
        follower = asyncio.create_task(client.post("/runsync"))
        assert await cancel(client, running) == (200, {"id": running, "status": "CANCELLED"})
        await queued(comfyui, 2)
        assert comfyui.prompts[0]["prompt_id"] not in comfyui.running, "interrupted"
        comfyui.faults.endless = False
        done = await follower
        assert done["status"] == "COMPLETED"
        assert await cancel(client, done["id"]) == (200, {"id": done["id"], "status": "COMPLETED"})
        assert await cancel(client, running) == (200, {"id": running, "status": "CANCELLED"})
        assert (await client.status(running))["status"] == "CANCELLED"
        assert len(comfyui.prompts) == 2, "the one that waited was never queued"

    run(place, work)


def test_all_that_wait_are_cancelled_at_once(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        numbers = [(await client.post("/run"))["id"] for _ in range(3)]
        assert await client.ask("POST", "/v2/x/purge-queue") == (200, {"removed": 2, "status": "completed"})
        assert (await client.status(numbers[2]))["status"] == "CANCELLED"
        comfyui.faults.endless = False
        await client.until(numbers[0], "COMPLETED")

    run(place, work)


def test_a_job_that_runs_too_long_is_ended(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        said = await client.post("/runsync")
        assert said["status"] == "TIMED_OUT"
        assert said["error"] == "The job ran for 0.5 s, which is the longest that it may: it was ended."
        assert not comfyui.running, "interrupted"
        for wrong in (True, "1", 4999, [1]):
            status, _ = await client.ask("POST", "/run", json={**JOB, "policy": {"executionTimeout": wrong}})
            assert status == 400, wrong
        comfyui.faults.endless = False
        await client.post("/runsync", {**JOB, "policy": {"executionTimeout": 5000}})

    run(place, work, job_seconds=0.5)


# --- Following a job


def events(text: str) -> list[tuple[str, Any]]:
    found = []
    for block in filter(None, text.split("\n\n")):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


def test_a_job_is_followed_as_events_to_its_end(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        first, second = [(await client.post("/run"))["id"] for _ in range(2)]

        async def follow() -> list[tuple[str, Any]]:
            async with client.session.get(f"/stream/{second}") as answer:
                assert answer.content_type == "text/event-stream"
                await answer.content.readuntil(b"\n\n")
                comfyui.faults.endless = False
                return events(await answer.text())

        told = await follow()
        assert told[0] == ("status", {"id": second, "status": "IN_PROGRESS"})
        percents = [data["percent"] for kind, data in told if kind == "progress"]
        assert percents == sorted(percents) != []
        assert told[-1] == ("result", await client.status(second))
        async with client.session.get(f"/stream/{first}") as answer:
            assert events(await answer.text()) == [("result", await client.status(first))]

    run(place, work)


def test_a_job_is_run_and_followed_by_one_request(place: Place) -> None:
    async def work(client: Client) -> None:
        wanted = {"Accept": "text/event-stream"}
        async with client.session.post("/runsync", json=JOB, headers=wanted) as answer:
            told = events(await answer.text())
        assert [kind for kind, _ in told][0 :: len(told) - 1] == ["status", "result"]
        assert told[-1][1]["status"] == "COMPLETED"

    run(place, work)


def test_runpods_library_follows_a_job_as_json(place: Place) -> None:
    async def work(client: Client) -> None:
        number = (await client.post("/v2/x/run"))["id"]
        await client.until(number, "COMPLETED")
        status, said = await client.ask("GET", f"/v2/x/stream/{number}")
        assert (status, said["status"]) == (200, "COMPLETED")
        assert {each["output"]["type"] for each in said["stream"]} == {"progress"}
        assert await client.ask("GET", f"/v2/x/stream/{number}") == (
            200,
            {"status": "COMPLETED", "stream": []},
        )
        wanted = {"Accept": "text/event-stream"}
        async with client.session.get(f"/v2/x/stream/{number}", headers=wanted) as answer:
            assert answer.content_type == "text/event-stream"

    run(place, work)


def test_progress_is_in_the_status_of_a_job_that_runs(comfyui: ComfyUI, place: Place) -> None:
    async def work(client: Client) -> None:
        number = (await client.post("/run"))["id"]
        client.queue.tell(number, {"type": "progress", "percent": 50})
        assert (await client.status(number))["output"] == {"type": "progress", "percent": 50}
        await client.until(number, "COMPLETED")

    run(place, work)


# --- What is kept, and what is not


def test_what_came_of_a_job_is_kept_for_a_time_and_within_a_size(place: Place) -> None:
    async def in_time(client: Client) -> None:
        number = (await client.post("/runsync"))["id"]
        await asyncio.sleep(0.3)
        assert (await client.ask("GET", f"/status/{number}"))[0] == 404

    async def in_size(client: Client) -> None:
        first, second = [(await client.post("/runsync"))["id"] for _ in range(2)]
        assert (await client.ask("GET", f"/status/{first}"))[0] == 404
        assert (await client.ask("GET", f"/status/{second}"))[0] == 200, "the last one stays"

    run(place, in_time, keep_seconds=0.2)
    run(place, in_size, keep_bytes=100)


def test_an_answer_that_cannot_be_passed_on_is_a_failure(place: Place) -> None:
    async def work(client: Client) -> None:
        said = await client.post("/runsync")
        assert said["status"] == "FAILED"
        assert said["error"].startswith("The results of this job are larger than 0.0011 MB")

    run(place, work, response_bytes=11_100)


def test_a_job_that_a_killed_worker_left_open_has_failed(comfyui: ComfyUI, place: Place) -> None:
    JobFile(place.run / "jobs.json").note("left-1", "")

    async def work(client: Client) -> None:
        said = await client.status("left-1")
        assert said["status"] == "FAILED"
        assert said["error"].startswith("The worker was killed while this job ran")
        assert JobFile(place.run / "jobs.json").left() == {}
        comfyui.faults.endless = True
        running, waiting = [(await client.post("/run"))["id"] for _ in range(2)]
        assert JobFile(place.run / "jobs.json").left().keys() == {running, waiting}
        comfyui.faults.endless = False
        await client.until(waiting, "COMPLETED")

    run(place, work)
    assert JobFile(place.run / "jobs.json").left() == {}


def test_when_it_is_stopped_jobs_that_wait_have_failed_and_no_more_are_taken(
    comfyui: ComfyUI, place: Place
) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        running, waiting = [(await client.post("/run"))["id"] for _ in range(2)]
        await client.until(running, "IN_PROGRESS")
        waits = asyncio.create_task(client.post("/runsync"))
        await asyncio.sleep(0.1)
        stopping = asyncio.create_task(client.queue.stop(20.0))
        for said in (await client.status(waiting), await waits):
            assert (said["status"], said["error"]) == (
                "FAILED",
                "The worker was stopped before it came to this job: send it again.",
            )
        status, said = await client.ask("POST", "/run", json=JOB)
        assert (status, said["error"][:29]) == (503, "The worker is being stopped: ")
        assert (await client.ask("GET", "/ping"))[0] == 503
        comfyui.faults.endless = False
        await stopping
        assert (await client.status(running))["status"] == "COMPLETED"

    run(place, work)
