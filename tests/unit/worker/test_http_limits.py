"""What strangers, slow clients and too many of them get from a worker behind HTTP: a sentence."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from unit.worker.http_worker import JOB, TOKEN, Client, run

from worker import http_api

if TYPE_CHECKING:
    from servers.comfyui import ComfyUI

    from worker.job import Place

HEAD = f"Host: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"


def said(got: bytes) -> tuple[int, str]:
    """Return the status of an answer and its sentence: JSON, and nothing but it."""
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    error = json.loads(body)
    assert error.keys() == {"error"}
    assert "\n" not in error["error"]
    assert "Traceback" not in error["error"]
    return int(head.split()[1]), error["error"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b'"input"', 400),
        (b"{}", 400),
        (b"[" * 100_000, 400),
        (b'{"input": ' + b"9" * 5000 + b"}", 400),
        (b'{"input": [' + b"0," * 1_001_000 + b"0]}", 400),
    ],
)
def test_what_is_no_job_is_refused(place: Place, body: bytes, status: int) -> None:
    async def work(client: Client) -> None:
        found, error = await client.ask("POST", "/run", data=io.BytesIO(body))
        assert (found, list(error)) == (status, ["error"])
        assert client.queue.counts()["inQueue"] == 0

    run(place, work)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 20_000), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 20_000), 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % (b"X: y\r\n" * 1000), 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"POST /run HTTP/1.1\r\n%sContent-Length: x\r\n\r\n" % HEAD.encode(), 400),
        (
            b"POST /run HTTP/1.1\r\n%sContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            % HEAD.encode(),
            400,
        ),
        (b"POST /run HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\nzz\r\n" % HEAD.encode(), 400),
        (b"POST /run HTTP/1.1\r\n%sContent-Length: 9\r\nExpect: more\r\n\r\n" % HEAD.encode(), 417),
        (b"POST /run HTTP/1.1\r\n%sContent-Length: 9\r\nContent-Encoding: gzip\r\n\r\n" % HEAD.encode(), 415),
        (b"POST /run HTTP/1.1\r\n%sContent-Length: 99999999\r\n\r\n" % HEAD.encode(), 413),
    ],
)
def test_what_is_no_good_request_is_answered_a_sentence(
    place: Place, request_: bytes, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    async def work(client: Client) -> None:
        assert said(await client.raw(request_))[0] == status

    run(place, work)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "number", ["x", str(uuid.UUID(int=1)), "%2e%2e%2fetc", "a%00b", "'; drop", "x" * 5000]
)
def test_an_id_that_is_guessed_finds_nothing(place: Place, number: str) -> None:
    async def work(client: Client) -> None:
        for method, name in (("GET", "status"), ("GET", "stream"), ("POST", "cancel")):
            status, error = await client.ask(method, f"/{name}/{number}")
            assert (status, list(error)) == (404, ["error"])

    run(place, work)


def test_a_body_is_refused_as_soon_as_it_is_too_large(place: Place) -> None:
    async def work(client: Client) -> None:
        head = f"POST /run HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
        without_end = b"186a0\r\n" + b" " * 100_000 + b"\r\n"
        status, error = said(await client.raw(head, without_end))
        assert (status, error[:33]) == (413, "The body is larger than 1 MB: sen")
        assert (await client.post("/runsync"))["status"] == "COMPLETED"

    run(place, work, request_bytes=1_000_000)


def test_a_large_body_is_asked_for_only_when_it_will_be_taken(place: Place) -> None:
    async def work(client: Client) -> None:
        for token, length, expected in (("x", 9, b"401"), (TOKEN, 2_000_000, b"413"), (TOKEN, 9, b"100")):
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(
                f"POST /run HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {token}\r\n"
                f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n".encode()
            )
            assert (await reader.readline()).split()[1] == expected
            writer.close()

    run(place, work, request_bytes=1_000_000)


def test_who_sends_slowly_is_cut_off(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.http_server._IDLE_SECONDS", 0.3)
    monkeypatch.setattr("worker.http_body._SILENT_SECONDS", 0.3)
    monkeypatch.setattr("worker.http_body._FIRST_SECONDS", 0.6)

    async def work(client: Client) -> None:
        async with asyncio.timeout(8):
            assert await client.raw(b"GET / HTTP/1.1\r\n", b"X: y\r\n") == b"", "headers without end"
            head = f"POST /run HTTP/1.1\r\n{HEAD}Content-Length: 100000\r\n\r\n".encode()
            for drop in (b"", b" "):
                got = said(await client.raw(head, drop))
                assert got == (408, "The body comes too slowly: send the request again.")
        assert (await client.post("/runsync"))["status"] == "COMPLETED"

    run(place, work)


def test_who_does_not_read_is_cut_off(
    comfyui: ComfyUI, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_api, "_ANSWER_SECONDS", 0.3)

    async def work(client: Client) -> None:
        job = client.queue.submit({"input": {}}, 60.0)
        await client.until(job.id, "FAILED")
        job.final = b'"%s"' % (b"x" * 20_000_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        writer.write(f"GET /status/{job.id} HTTP/1.1\r\n{HEAD}\r\n".encode())
        await asyncio.sleep(0.8)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(20_000_000)
        writer.close()

    run(place, work)


def test_more_jobs_than_may_wait_are_sent_away_with_a_time_to_come_back(
    comfyui: ComfyUI, place: Place
) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        async def send() -> int:
            async with client.session.post("/run", json=JOB) as answer:
                if answer.status == 429:
                    assert int(answer.headers["Retry-After"]) >= 1
                return answer.status

        statuses = await asyncio.gather(*(send() for _ in range(200)))
        assert (statuses.count(200), statuses.count(429)) == (6, 194)
        assert client.queue.purge() == 5
        comfyui.faults.endless = False

    run(place, work, queue=5, rate=1000)


def test_more_requests_than_are_answered_are_sent_away(place: Place) -> None:
    async def work(client: Client) -> None:
        statuses = [(await client.ask("GET", "/status/x"))[0] for _ in range(12)]
        assert statuses[:10] == [404] * 10
        assert 429 in statuses[10:]
        assert (await client.ask("GET", "/ping"))[0] in (200, 204), "probes are always answered"

    run(place, work, rate=5)


def test_what_all_send_together_is_bounded(
    comfyui: ComfyUI, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_api, "_MEMORY", 3)
    comfyui.faults.endless = True
    large = {"input": {**JOB["input"], "pad": "x" * 90_000}}

    async def work(client: Client) -> None:
        numbers = [(await client.post("/run", large))["id"] for _ in range(3)]
        assert await client.ask("POST", "/run", json=large) == (
            429,
            {"error": "Too much is being sent at once: try again later."},
        )
        await client.ask("POST", f"/cancel/{numbers[2]}")
        numbers[2] = (await client.post("/run", large))["id"]
        comfyui.faults.endless = False
        for number in numbers:
            await client.until(number, "COMPLETED")
        for _ in range(5):
            await client.post("/runsync", large)  # all of it is given back

    run(place, work, request_bytes=100_000)


def test_a_mistake_of_the_worker_itself_is_in_its_log_alone(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_TOKEN", TOKEN)

    def broken(*_: Any) -> None:
        raise KeyError(f"with {TOKEN}")

    async def work(client: Client) -> None:
        monkeypatch.setattr(client.queue, "counts", broken)
        assert await client.ask("GET", "/health") == (
            500,
            {"error": "An internal error of podkiln: its log says more."},
        )
        monkeypatch.setattr(client.queue, "public", broken)
        head = f"POST /runsync HTTP/1.1\r\n{HEAD}Accept: text/event-stream\r\nContent-Length: 13\r\n\r\n"
        got = await client.raw(f'{head}{{"input": {{}}}}'.encode())
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.count(b"HTTP/1.1") == 1, "events that have begun are cut off"
        monkeypatch.undo()
        monkeypatch.setenv("API_TOKEN", TOKEN)

    run(place, work)
    err = capsys.readouterr().err
    assert "KeyError" in err
    assert TOKEN not in err
