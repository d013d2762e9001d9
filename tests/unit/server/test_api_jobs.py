"""Generations over time: their place, their progress, their end, and who is told."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from unit.server.fake_model import FILMS, PREVIEW, png
from unit.server.http_model import TOKEN, eventually, run

from server.generation.request import OutOfMemoryError

if TYPE_CHECKING:
    from unit.server.http_model import Client

IMAGES = "/v1/images/generations"
CAT = {"prompt": "a cat"}


def test_a_job_is_asked_for_later_and_knows_its_place() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        first, second = [(await client.post("/generate?async", CAT))["id"] for _ in range(2)]
        assert (await client.post("/generate", CAT, headers={"Prefer": "respond-async"}))["position"] == 2
        await client.until(first, "IN_PROGRESS")
        said = (await client.ask("GET", f"/jobs/{second}"))[1]
        assert (said["status"], said["position"]) == ("IN_QUEUE", 1)
        assert (await client.ask("GET", "/health"))[1]["queue"] == {"waiting": 2, "running": 1, "limit": 50}
        assert (await client.ask("DELETE", f"/jobs/{second}"))[1]["status"] == "CANCELLED"
        client.model.held.set()
        said = await client.until(first, "COMPLETED")
        assert [each["mime"] for each in said["output"]["images"]] == ["image/png"]
        assert "output" in (await client.ask("GET", f"/jobs/{first}"))[1], "it is kept"
        assert (await client.ask("DELETE", f"/jobs/{first}"))[1]["status"] == "COMPLETED"
        assert (await client.ask("GET", "/jobs/x"))[0] == 404

    model = run(work)
    assert len(model.asked) == 2


def test_a_job_is_cancelled_within_a_step_and_the_next_one_begins() -> None:
    async def work(client: Client) -> None:
        client.model.held = held = threading.Event()
        waiting = asyncio.create_task(client.ask("POST", IMAGES, json={**CAT, "num_inference_steps": 100}))

        async def runs() -> bool:
            return bool(client.model.asked)

        await eventually(runs)
        [job] = client.served.queue.all()
        assert (await client.ask("DELETE", f"/jobs/{job.id}"))[1]["status"] == "CANCELLED"
        status, said = await waiting
        assert (status, said["error"]["message"]) == (409, "The generation was cancelled.")
        held.set()
        await client.post("/generate", CAT)
        assert client.model.stopped_at == 1

    run(work)


@pytest.mark.parametrize("how", ["json", "events", "openai", "queued"])
def test_who_goes_away_ends_the_generation(how: str) -> None:
    accept = {"Accept": "text/event-stream"} if how == "events" else {}
    path = IMAGES if how == "openai" else "/generate"

    async def work(client: Client) -> None:
        client.model.held = held = threading.Event()
        if how == "queued":
            await client.post("/generate?async", CAT)
        headers = {"Authorization": f"Bearer {TOKEN}", **accept}
        async with aiohttp.ClientSession() as guest:
            waiting = asyncio.create_task(
                guest.post(f"http://127.0.0.1:{client.port}{path}", json=CAT, headers=headers)
            )
            jobs = 2 if how == "queued" else 1

            async def there() -> bool:
                return len(client.served.queue.all()) == jobs and bool(client.model.asked)

            await eventually(there)
            await asyncio.sleep(0.02)
            waiting.cancel()
            [answer] = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(answer, aiohttp.ClientResponse):  # events have begun
                answer.close()

        async def ended() -> bool:
            return client.served.queue.counters.outcomes["cancelled"] == 1

        await eventually(ended)
        held.set()

    run(work)


def test_progress_comes_as_events() -> None:
    async def work(client: Client) -> None:
        accept = {"Accept": "text/event-stream"}
        events = await client.events("/generate", {**CAT, "previews": True, "seed": 1}, headers=accept)
        kind, last = events[-1]
        assert (kind, last["status"]) == ("result", "COMPLETED")
        assert base64.b64decode(last["output"]["images"][0]["data"]) == png(64, 64, 1)
        told = [said for kind, said in events if kind == "progress"]
        assert told == sorted(told, key=lambda said: said["step"])
        assert told[0]["preview"] == f"data:image/jpeg;base64,{base64.b64encode(PREVIEW).decode()}"
        assert told[-1]["steps"] == 4
        events = await client.events("/generate", {**CAT, "width": 248}, headers=accept)
        assert events[-1][1]["status"] == "FAILED"
        assert events[-1][1]["error"] == "width does not go with unet here."
        number = (await client.post("/generate?async", CAT))["id"]
        await client.until(number, "COMPLETED")
        async with client.session.get(f"/jobs/{number}", headers=accept) as answer:
            assert (await answer.text()).startswith("event: result\ndata: {")

    run(work)


def test_partial_images_are_openais_events() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        asked = {**CAT, "stream": True, "partial_images": 2, "seed": 1, "num_inference_steps": 6}
        task = asyncio.create_task(client.events(IMAGES, asked))
        while not task.done():  # slowly, so that each step is seen
            await asyncio.sleep(0.02)
            client.model.held.set()
            client.model.held.clear()
        events = task.result()
        assert [kind for kind, _ in events] == [
            f"image_generation.{each}" for each in ("partial_image",) * 2 + ("completed",)
        ]
        assert [said["type"] for _, said in events] == [kind for kind, _ in events]
        assert [said.get("partial_image_index") for _, said in events] == [0, 1, None]
        assert base64.b64decode(events[0][1]["b64_json"]) == PREVIEW
        assert base64.b64decode(events[2][1]["b64_json"]) == png(64, 64, 1)
        client.model.held = None
        client.model.raises = OutOfMemoryError("The card's memory is too small for this.")
        [(kind, said)] = await client.events(IMAGES, {**CAT, "stream": True})
        assert (kind, said["error"]["code"]) == ("error", "out_of_memory")

    run(work)


def test_the_queue_is_bounded_and_nothing_is_left_of_many_requests() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        numbers = [(await client.post("/generate?async", CAT))["id"] for _ in range(3)]
        async with client.session.post("/generate", json=CAT) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        status, said = await client.ask("POST", IMAGES, json=CAT)
        assert (status, said["error"]["type"]) == (429, "rate_limit_error")
        assert (await client.ask("GET", "/ready"))[0] == 429
        client.model.held.set()
        await client.until(numbers[-1], "COMPLETED")
        before = client.served.queue.all()
        for number in range(200):
            await client.post(IMAGES if number % 2 else "/generate", {**CAT, "num_inference_steps": 1})
        assert client.served.queue.all() == before
        assert client.served.queue.counters.outcomes["completed"] == 203

    run(work, queue=2, request_bytes=200)  # of which twenty may be there at once


def test_what_is_remembered_of_jobs_is_bounded() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        for _ in range(5):
            number = (await client.post("/v1/videos", {"prompt": "a" * 1_000}))["id"]
            assert (await client.ask("DELETE", f"/jobs/{number}"))[0] == 200
        assert len(client.served.queue.all()) == 2

    run(work, *FILMS, keep_bytes=2_500)


FAILURES: list[tuple[Exception, int, str, str]] = [
    (OutOfMemoryError("The card's memory is too small for this."), 500, "too small", "out_of_memory"),
    (ValueError("/opt/podkiln/secret"), 500, "An internal error of podkiln: its log says more.", "failed"),
]


def test_failures_are_told_apart_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    async def work(client: Client) -> None:
        for error, code, part, _ in FAILURES:
            client.model.raises = error
            async with client.session.post(IMAGES, json=CAT) as answer:
                assert (answer.status, answer.headers["x-should-retry"]) == (code, "false")
                said = (await answer.json())["error"]
                assert (said["type"], part in said["message"]) == ("server_error", True)
        await client.post(IMAGES, CAT)
        _, text = await client.ask("GET", "/metrics")
        lines = text.decode().splitlines()
        for line in (
            "podkiln_ready 1",
            "podkiln_queue_length 0",
            'podkiln_jobs_total{outcome="out_of_memory"} 1',
            'podkiln_jobs_total{outcome="failed"} 1',
            'podkiln_jobs_total{outcome="completed"} 1',
            'podkiln_phase_seconds_bucket{phase="denoise",le="0.01"} 0',
            'podkiln_phase_seconds_bucket{phase="denoise",le="0.05"} 1',
            'podkiln_phase_seconds_count{phase="denoise"} 1',
            "podkiln_vram_peak_bytes 1048576",
        ):
            assert line in lines
        client.model.raises = RuntimeError("CUDA error: an illegal memory access was encountered")
        assert (await client.ask("POST", IMAGES, json=CAT))[0] == 500
        assert (await client.ask("GET", "/ping"))[0] == 503
        assert (await client.ask("POST", IMAGES, json=CAT))[0] == 503

    run(work)
    assert '"event": "bug"' in capfd.readouterr().err


def test_a_generation_that_takes_too_long_is_ended() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        status, said = await client.ask("POST", IMAGES, json=CAT)
        assert (status, said["error"]["message"]) == (
            500,
            "The generation took 0.05 s, which is the longest that it may: it was ended.",
        )
        client.model.held.set()
        client.model.held = None
        await client.post(IMAGES, CAT)
        assert client.model.stopped_at == 1

    run(work, job_seconds=0.05)


def test_videos_are_openais_jobs() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        said: dict[str, Any] = await client.post("/v1/videos", {**CAT, "seconds": "4", "size": "64x32"})
        assert (said["object"], said["status"], said["size"], said["seconds"]) == (
            "video",
            "in_progress",
            "64x32",
            "4.12",
        )
        other = (await client.post("/v1/videos", CAT))["id"]
        assert (await client.ask("GET", f"/v1/videos/{other}"))[1]["status"] == "queued"
        assert (await client.ask("GET", f"/v1/videos/{other}/content"))[1]["error"]["code"] == "not_ready"
        _, listed = await client.ask("GET", "/v1/videos?limit=1")
        assert ([each["id"] for each in listed["data"]], listed["has_more"]) == ([other], True)
        _, listed = await client.ask("GET", f"/v1/videos?after={other}")
        assert ([each["id"] for each in listed["data"]], listed["has_more"]) == ([said["id"]], False)
        for limit in ("0", "101", "many", "0001" + "9" * 5_000):
            assert (await client.ask("GET", f"/v1/videos?limit={limit}"))[1]["error"]["param"] == "limit"
        assert (await client.ask("DELETE", f"/v1/videos/{other}"))[1] == {
            "id": other,
            "object": "video.deleted",
            "deleted": True,
        }
        assert (await client.ask("GET", f"/v1/videos/{other}"))[0] == 404
        client.model.held.set()
        await client.until(said["id"], "COMPLETED")
        _, done = await client.ask("GET", f"/v1/videos/{said['id']}")
        assert (done["status"], done["progress"], done["expires_at"] - done["completed_at"]) == (
            "completed",
            100,
            1800,
        )
        async with client.session.get(f"/v1/videos/{said['id']}/content") as answer:
            assert (answer.content_type, (await answer.read())[4:12]) == ("video/mp4", b"ftypmp42")
        client.model.raises = OutOfMemoryError("The card's memory is too small for this.")
        number = (await client.post("/v1/videos", CAT))["id"]
        await client.until(number, "FAILED")
        _, failed = await client.ask("GET", f"/v1/videos/{number}")
        assert (failed["status"], failed["error"]["code"]) == ("failed", "out_of_memory")

    run(work, *FILMS)


def test_it_stops_when_the_running_generation_is_over_or_the_grace() -> None:
    async def work(client: Client) -> None:
        client.model.held = threading.Event()
        running, waiting = [asyncio.create_task(client.ask("POST", IMAGES, json=CAT)) for _ in range(2)]

        async def both() -> bool:
            return bool(client.served.queue.waiting and client.model.asked)

        await eventually(both)
        ends = asyncio.create_task(client.served.queue.stop(0.1))
        (status, said), (other, _) = await waiting, await running
        assert (status, other, said["error"]["message"][:31]) == (503, 503, "The server is being stopped: se")
        assert (await client.ask("POST", IMAGES, json=CAT))[0] == 503
        client.model.held.set()
        assert await ends

    run(work)
