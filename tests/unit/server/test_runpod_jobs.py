"""Jobs of RunPod's queue: what they say, what they get, and how they end."""

from __future__ import annotations

import asyncio
import base64
import threading
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import pytest
from unit.server.fake_model import FILMS, FakeModel, png
from unit.server.http_model import eventually

from server.generation.request import OutOfMemoryError
from server.jobs import runpod
from server.jobs.queue import Queue
from server.jobs.runpod import Handler
from server.jobs.thread import OneThread
from worker import runpod_sdk
from worker.bucket import Bucket
from worker.handler import CRASHED, STOPPED
from worker.job_file import JobFile
from worker.serve_settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

CAT = {"prompt": "a cat", "seed": 5}
PICTURE = base64.b64encode(png(16, 16)).decode()


def run(
    folder: Path, work: Callable[[Handler, FakeModel], Awaitable[None]], *tasks: str, **options: Any
) -> None:
    """Do something with a handler."""
    model, thread = FakeModel(*tasks), OneThread()

    async def begin() -> None:
        queue = Queue(Settings(port=0, keep_seconds=0.0), thread)
        target = options.pop("bucket", None)
        handler = Handler(model, queue, target, JobFile(folder / "jobs.json"), interval=0.0, **options)
        async with asyncio.timeout(20):
            await work(handler, model)
            await queue.stop(5.0)

    asyncio.run(begin())
    thread.close()


ERRORS: list[tuple[Any, str]] = [
    (None, 'no "input"'),
    ("not JSON", 'no "input"'),
    ([], 'no "input"'),
    ({}, "prompt is missing"),
    ({**CAT, "steps": 2}, "takes no parameter steps"),
    ({**CAT, "image": "http://169.254.169.254/"}, "not one of the public internet"),
    ({"openai_route": "/v1/chat/completions", "openai_input": CAT}, "openai_route is none that generates"),
    ({"openai_route": "/v1/images/generations"}, "openai_input is not an object"),
    ({"openai_route": "/v1/images/generations", "openai_input": {**CAT, "size": "x"}}, "size is x"),
    ({"openai_route": "/v1/videos", "openai_input": CAT}, "This model does text-to-image"),
]


def test_a_job_has_the_form_of_either_interface_and_one_form_of_answer(tmp_path: Path) -> None:
    async def work(handler: Handler, model: FakeModel) -> None:
        plain = await handler({"id": "a", "input": {**CAT, "num_images_per_prompt": 2}})
        other = {"openai_route": "/v1/images/generations", "openai_input": {**CAT, "n": 2}}
        assert await handler({"id": "b", "input": other}) == plain
        assert plain.keys() == {"images", "parameters", "model", "timings", "vram_peak"}
        _, second = plain["images"]
        assert second == {
            "filename": "image-1.png",
            "type": "base64",
            "mime": "image/png",
            "seed": 6,
            "width": 64,
            "height": 64,
            "data": base64.b64encode(png(64, 64, 6)).decode(),
        }
        edit = {"openai_route": "/v1/images/edits", "openai_input": {**CAT, "image": PICTURE}}
        assert "images" in await handler({"id": "c", "input": edit})
        assert model.asked[-1].task == "image-to-image"
        for given, part in ERRORS:
            said = await handler({"id": "d", "input": given})
            assert part in said["error"], given
        model.raises = OutOfMemoryError("The card's memory is too small for this.")
        assert await handler({"id": "e", "input": CAT}) == {
            "error": "The card's memory is too small for this."
        }
        model.content_bytes = 16_000_000
        assert "larger than 20 MB as base64" in (await handler({"id": "f", "input": CAT}))["error"]
        model.raises = RuntimeError("CUDA error: unknown error")
        assert (await handler({"id": "g", "input": CAT}))["refresh_worker"] is True
        assert handler.queue.all() == []

    run(tmp_path, work)


def test_results_go_into_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[tuple[str, str, bytes, str]] = []

    class Uploader:
        def __init__(self, bucket: Bucket, *, private: bool) -> None:
            self.name = bucket.called()

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def put(self, key: str, mime: str, content: AsyncIterator[bytes]) -> str:
            put.append((key, mime, b"".join([each async for each in content]), self.name))
            return f"https://s3/{key}"

    monkeypatch.setattr(runpod, "Uploader", Uploader)
    config = {
        "endpointUrl": "https://s3.example.com",
        "accessId": "id-of-a-key",
        "accessSecret": "a-secret-key",
        "bucketName": "theirs",
    }

    async def work(handler: Handler, model: FakeModel) -> None:
        said = await handler({"id": "a", "input": CAT})
        assert (said["videos"][0]["type"], said["videos"][0]["data"]) == (
            "s3_url",
            "https://s3/out/a/video-0.mp4",
        )
        await handler({"id": "b", "input": CAT, "s3Config": config})
        assert [each[::3] for each in put] == [("out/a/video-0.mp4", "ours"), ("b/video-0.mp4", "theirs")]
        assert put[0][1:3] == ("video/mp4", b"\0\0\0\x18ftypmp425")
        assert (
            "'s3Config' must be" in (await handler({"id": "c", "input": CAT, "s3Config": {"x": 1}}))["error"]
        )

    ours = Bucket("https://s3.example.com", "key", "secret", "ours", "out")
    run(tmp_path, work, *FILMS, bucket=ours)


def test_a_job_that_nobody_waits_for_ends_and_one_that_is_stopped_is_answered(tmp_path: Path) -> None:
    sent: list[dict[str, Any]] = []

    async def send(_: dict[str, Any], message: dict[str, Any]) -> None:
        sent.append(message)

    async def work(handler: Handler, model: FakeModel) -> None:
        await handler({"id": "z", "input": {**CAT, "num_inference_steps": 50}})
        assert sent[-1].items() >= {"type": "progress", "max": 50}.items()
        for stopped in (False, True):
            model.held = held = threading.Event()
            count = len(model.asked)
            task = asyncio.create_task(handler({"id": "a", "input": CAT}))

            async def generates(count: int = count) -> bool:
                return len(model.asked) > count

            await eventually(generates)
            assert handler.open_jobs._open == {"a": ""}
            if stopped:
                handler.termination._end_all()
                assert await task == {"error": STOPPED}
            else:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            held.set()
            assert handler.open_jobs._open == {}

    run(tmp_path, work, send=send)


def test_the_sdk_takes_jobs_once_the_model_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, Any]] = []
    answers: list[dict[str, Any]] = []

    @asynccontextmanager
    async def session() -> AsyncIterator[str]:
        yield "a session"

    async def send_result(_: object, body: dict[str, Any], job: dict[str, Any]) -> None:
        sent.append((job["id"], body))

    def start(config: dict[str, Any]) -> None:
        assert config["concurrency_modifier"](3) == 1
        answers.append(asyncio.run(config["handler"]({"id": "job-1", "input": CAT})))

    parts = (
        SimpleNamespace(serverless=SimpleNamespace(start=start)),
        SimpleNamespace(send_result=send_result),
        SimpleNamespace(AsyncClientSession=session),
    )
    monkeypatch.setattr(runpod_sdk, "_imported", lambda: parts)
    monkeypatch.setattr("worker.children.end_with_this", lambda: None)
    monkeypatch.setenv("PATH", "")
    JobFile(tmp_path / "jobs.json").begin("left-over")
    runpod.serve(lambda _environ, _phase: FakeModel(), {"PODKILN_LOCAL": str(tmp_path)})
    assert sent[0] == ("left-over", {"error": CRASHED})
    assert answers[0]["images"][0]["seed"] == 5
