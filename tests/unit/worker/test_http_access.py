"""Whom a worker behind HTTP lets in, what probes are told, and what its environment says."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from registries import free_port
from unit.worker.http_worker import JOB, TOKEN, WORKFLOW, Client, eventually, run

from pod.errors import SETTING_MALFORMED
from pod.util.env import SettingError
from worker import openapi, serve_settings

if TYPE_CHECKING:
    from servers.comfyui import ComfyUI

    from worker.job import Place

KEY = {"API_TOKEN": TOKEN}
UNKNOWN = "The token is missing or wrong: send Authorization: Bearer API_TOKEN."


LOGINS: list[tuple[dict[str, str], int]] = [  # headers, and the status of a job that there is not
    ({"Authorization": f"Bearer {TOKEN}"}, 404),
    ({"Authorization": f"bearer  {TOKEN}"}, 404),
    ({"Authorization": TOKEN}, 404),
    ({"Authorization": "Bearer runpods", "X-API-Key": TOKEN}, 404),
    ({}, 401),
    ({"Authorization": ""}, 401),
    ({"Authorization": "Bearer"}, 401),
    ({"Authorization": f"Bearer {TOKEN}x"}, 401),
    ({"Authorization": f"Basic {TOKEN}"}, 401),
    ({"Authorization": "Bearer \udcff\udcfe"}, 401),
    ({"X-API-Key": TOKEN[:-1]}, 401),
]


def test_who_has_the_token_is_let_in(place: Place) -> None:
    async def work(client: Client) -> None:
        for headers, status in LOGINS:
            lines = [f"{name}: {value}" for name, value in headers.items()]
            head = "\r\n".join(["GET /status/x HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""])
            got = await client.raw(head.encode("utf-8", "surrogateescape"))
            assert got.startswith(f"HTTP/1.1 {status} ".encode()), headers
            if status == 401:
                assert json.loads(got.partition(b"\r\n\r\n")[2]) == {"error": UNKNOWN}
                assert b"WWW-Authenticate: Bearer" in got

    run(place, work)


def test_some_addresses_are_answered_without_it(place: Place) -> None:
    async def work(client: Client) -> None:
        for route in openapi.ROUTES:
            path = route.path.replace("{id}", "x")
            headers = {"Authorization": ""}
            async with client.session.request(route.method, path, headers=headers, json=JOB) as answer:
                assert (answer.status == 401) is not route.is_open, route

    run(place, work)


PAGES: list[tuple[dict[str, str], int]] = [  # the same
    ({"Host": "localhost"}, 404),
    ({"Host": "127.0.0.1:8000", "Origin": "http://127.0.0.1:8000"}, 404),
    ({"Host": "[::1]:8000"}, 404),
    ({"Host": "127.0.0.1", "Origin": "https://evil.example"}, 403),
    ({"Host": "127.0.0.1", "Origin": "null"}, 403),
    ({"Host": "127.0.0.1", "Origin": "http://[x"}, 403),
    ({"Host": "127.0.0.1", "Sec-Fetch-Site": "cross-site"}, 403),
    ({"Host": "rebound.example"}, 403),
]


def test_pages_of_other_sites_reach_nothing_on_a_machine_without_a_token(place: Place) -> None:
    async def work(client: Client) -> None:
        for headers, status in PAGES:
            assert (await client.ask("GET", "/status/x", headers=headers))[0] == status, headers

    run(place, work, token=None)


def test_probes_are_told_how_comfyui_is(
    comfyui: ComfyUI, place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.readiness._PAUSE", 0.02)
    comfyui.faults.answers["/prompt"] = (500, {}, b"")

    async def work(client: Client) -> None:
        assert (await client.ask("GET", "/ping"))[0] == 204
        assert await client.ask("GET", "/ready") == (503, {"error": "ComfyUI does not serve."})
        assert (await client.ask("GET", "/health"))[1]["workers"] == {
            "idle": 0,
            "initializing": 1,
            "running": 0,
        }
        comfyui.faults.answers.clear()
        await client.pinged(200)
        assert (await client.ask("HEAD", "/ping"))[0] == 200
        assert (await client.ask("GET", "/healthz"))[0] == 200, "as HEALTH_CHECK_PATH has it"
        assert await client.ask("GET", "/ready") == (200, {"status": "ready"})
        assert (await client.ask("GET", "/health"))[1]["workers"] == {
            "idle": 1,
            "initializing": 0,
            "running": 0,
        }
        comfyui.faults.answers["/prompt"] = (500, {}, b"")
        await client.pinged(503)

    run(place, work, health_path="/healthz")
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "podkiln: ready for jobs",
        "podkiln: not ready for jobs: ComfyUI does not answer.",
    ]


def test_it_starts_until_it_is_warm_and_says_so_at_the_port_of_probes_too(
    comfyui: ComfyUI, place: Place
) -> None:
    comfyui.faults.endless = True
    port = free_port()

    async def work(client: Client) -> None:
        async def probed(path: str) -> int:
            return (await client.ask("GET", f"http://127.0.0.1:{port}{path}"))[0]

        number = (await client.post("/run"))["id"]

        async def warming() -> bool:
            return bool(comfyui.running)

        await eventually(warming)
        await asyncio.sleep(0.3)
        assert (await client.status(number))["status"] == "IN_QUEUE", "jobs wait for the warm-up"
        assert (await client.ask("GET", "/ping"))[0] == await probed("/healthz") == 204
        comfyui.faults.endless = False
        await client.pinged(200)
        assert [await probed(path) for path in ("/healthz", "/ping", "/health", "/run")] == [
            200,
            200,
            404,
            404,
        ]
        await client.until(number, "COMPLETED")
        assert len(comfyui.prompts) == 2

    warm = json.dumps(WORKFLOW)
    run(place, work, warm_up=warm, health_port=port, health_path="/healthz")


def test_it_is_not_ready_while_its_queue_is_full(comfyui: ComfyUI, place: Place) -> None:
    comfyui.faults.endless = True

    async def work(client: Client) -> None:
        numbers = [(await client.post("/run"))["id"] for _ in range(2)]
        await client.until(numbers[0], "IN_PROGRESS")
        await client.pinged(200)
        assert await client.ask("GET", "/ready") == (503, {"error": "As many jobs wait as may wait here."})
        comfyui.faults.endless = False
        await client.until(numbers[1], "COMPLETED")

    run(place, work, queue=1)


def test_the_description_is_of_what_is_answered(place: Place) -> None:
    async def status_of(client: Client, method: str, path: str) -> int:
        async with client.session.request(method, path.replace("{id}", "x"), json={}) as answer:
            return answer.status

    async def work(client: Client) -> None:
        _, document = await client.ask("GET", "/openapi.json")
        assert document["openapi"] == "3.1.0"
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                assert str(await status_of(client, method, path)) in operation["responses"], path
            assert await status_of(client, "DELETE", path) == 405
        known = document["components"]["schemas"].keys()
        _, schemas = await client.ask("GET", "/schema")
        assert schemas.keys() == {"mine"}
        assert await client.ask("GET", "/schema?preset=mine") == (200, schemas["mine"])
        status, said = await client.ask("GET", "/schema?preset=mime")
        assert (status, said["error"]) == (404, "This worker has no preset mime: did you mean mine?")
        assert set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))) == known
        async with client.session.get("/docs") as answer:
            page = await answer.text()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "src=" not in page
        assert "//" not in page
        for path in document["paths"]:
            assert f"<code>{path}</code>" in page

    run(place, work)


# --- Its environment


def test_it_listens_where_the_environment_says() -> None:
    plain = serve_settings.read(KEY)
    assert (plain.port, plain.host, plain.token, plain.health_path) == (8000, None, TOKEN, "/ping")
    assert (plain.job_seconds, plain.wait_seconds, plain.longest_wait) == (3600, 90, 300)
    assert (plain.request_bytes, plain.response_bytes) == (30_000_000, 30_000_000)
    full = serve_settings.read(
        {
            **KEY,
            "PORT": "9000",
            "SERVE_HOST": "[::1]",
            "HEALTH_CHECK_PATH": "/health",
            "PODKILN_SERVE": "http",
            "PORT_HEALTH": "9001",
            "SERVE_REQUEST_MB": "100",
            "SERVE_RESPONSE_MB": "50",
            "SERVE_JOB_SECONDS": "60.5",
            "SERVE_WAIT_SECONDS": "600",
            "SERVE_QUEUE": "7",
            "WORKER_CONCURRENCY": "2",
            "SERVE_KEEP_SECONDS": "10",
            "SERVE_KEEP_MB": "1",
            "SERVE_RATE": "5",
        }
    )
    assert full == replace(
        plain,
        port=9000,
        host="::1",
        health_path="/health",
        health_port=9001,
        request_bytes=100_000_000,
        response_bytes=50_000_000,
        job_seconds=60.5,
        wait_seconds=600,
        longest_wait=600,
        queue=7,
        concurrency=2,
        keep_seconds=10,
        keep_bytes=1_000_000,
        rate=5,
    )


def test_on_a_load_balancing_endpoint_of_runpod_the_limits_are_that_platforms() -> None:
    found = serve_settings.read({"RUNPOD_ENDPOINT_ID": "abc", "PORT": "5000"})
    assert (found.port, found.token) == (5000, None), "RunPod asks for its own key"
    assert (found.job_seconds, found.wait_seconds, found.longest_wait) == (320, 320, 320)
    assert (found.request_bytes, found.response_bytes) == (30_000_000, 30_000_000)
    assert serve_settings.read({"RUNPOD_ENDPOINT_ID": "abc"}).port == 80
    assert serve_settings.read({"RUNPOD_ENDPOINT_ID": "abc", **KEY}).token == TOKEN


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"])
def test_without_a_token_only_this_machine_reaches_it(host: str) -> None:
    assert serve_settings.read({"SERVE_HOST": host}).loopback
    assert serve_settings.read({"SERVE_OPEN": "true"}).host is None, "unless it is said"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "API_TOKEN is not set, so that everybody who reaches port 8000 could run workflows: set it"),
        ({"SERVE_HOST": "0.0.0.0"}, "API_TOKEN is not set"),
        ({"API_TOKEN": "short"}, "API_TOKEN has fewer than 16 characters"),
        ({"API_TOKEN": "{{ RUNPOD_SECRET_x }}"}, "API_TOKEN is the name of a secret that was not filled in"),
        ({**KEY, "SERVE_HOST": "a b"}, "SERVE_HOST='a b' is not an address to listen on"),
        ({**KEY, "PORT": "0"}, "PORT='0' is not a valid port"),
        ({**KEY, "SERVE_QUEUE": "0"}, "SERVE_QUEUE='0' is not a whole number from 1 to 10000"),
        ({**KEY, "SERVE_JOB_SECONDS": "-1"}, "SERVE_JOB_SECONDS='-1' is not a number of seconds"),
        ({**KEY, "HEALTH_CHECK_PATH": "ping"}, "HEALTH_CHECK_PATH='ping' is not a plain path"),
    ],
)
def test_what_cannot_be_meant_is_refused(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingError, match=f"^{re.escape(says)}") as refused:
        serve_settings.read(environ)
    assert refused.value.exit_code == SETTING_MALFORMED
    assert "short" not in str(refused.value), "no value of a secret"
