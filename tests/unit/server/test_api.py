"""The routes of the model's server, a row a request: what the model is asked, or why it is not."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from unit.server.fake_model import FILMS, PICTURES, png
from unit.server.http_model import run

from server.api.routes import ROUTES
from server.generation.request import LoraScale

if TYPE_CHECKING:
    from unit.server.http_model import Client

ROOT = Path(__file__).resolve().parents[3]
IMAGES, EDITS, VIDEOS, AUDIO = (
    "/v1/images/generations",
    "/v1/images/edits",
    "/v1/videos",
    "/v1/audio/generate",
)
PICTURE = base64.b64encode(png(16, 16)).decode()
URI = f"data:image/png;base64,{PICTURE}"
MASK = base64.b64encode(png(16, 16, 255)).decode()
BOMB = base64.b64encode(png(16, 16, said=(60_000, 60_000))).decode()
FILM = base64.b64encode(b"\0\0\0\x18ftypmp42 a film").decode()

NO_FILE = b'Content-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
# The route, what is sent beside a prompt, and what the model is asked.
TAKEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (IMAGES, {}, {"task": "text-to-image", "parameters": {"prompt": "a cat"}, "image_format": "png"}),
    (
        IMAGES,
        {"model": "org/tiny", "n": 1, "size": "auto", "quality": "hd", "style": "vivid", "user": "u"},
        {},
    ),
    (
        IMAGES,
        {"model": "tiny", "size": "128x64"},
        {"parameters": {"prompt": "a cat", "width": 128, "height": 64}},
    ),
    (IMAGES, {"n": 3}, {"parameters": {"prompt": "a cat", "num_images_per_prompt": 3}}),
    (
        IMAGES,
        {"output_format": "webp", "output_compression": 40, "background": "opaque", "moderation": "low"},
        {"image_format": "webp", "quality": 40},
    ),
    (
        IMAGES,
        {"num_inference_steps": 2, "guidance_scale": 3, "negative_prompt": "dogs", "seed": 7, "width": 64},
        {
            "seed": 7,
            "parameters": {
                "prompt": "a cat",
                "num_inference_steps": 2,
                "guidance_scale": 3.0,
                "negative_prompt": "dogs",
                "width": 64,
            },
        },
    ),
    (
        IMAGES,
        {"extra_params": {"num_inference_steps": 1}, "diffusers_kwargs": {"guidance_scale": 1.5}},
        {"parameters": {"prompt": "a cat", "num_inference_steps": 1, "guidance_scale": 1.5}},
    ),
    (
        IMAGES,
        {"lora": [{"name": "style", "scale": 0.5}], "scheduler": "EulerDiscreteScheduler"},
        {"loras": (LoraScale("style", 0.5),), "scheduler": "EulerDiscreteScheduler"},
    ),
    (IMAGES, {"lora": "style"}, {"loras": (LoraScale("style"),)}),
    (IMAGES, {"lora": []}, {"loras": ()}),
    (IMAGES, {"seed": None, "n": None, "size": None, "stream": False}, {"loras": None, "previews": False}),
    (EDITS, {"image": URI, "strength": 0.3}, {"task": "image-to-image", "media": {"image": [png(16, 16)]}}),
    (EDITS, {"image": [URI, PICTURE]}, {"task": "image-to-image", "media": {"image": [png(16, 16)] * 2}}),
    (EDITS, {"image": {"image_url": URI}}, {"task": "image-to-image"}),
    (EDITS, {"image": "\n ".join(PICTURE)}, {"media": {"image": [png(16, 16)]}}),
    (
        EDITS,
        {"image": PICTURE, "mask": MASK, "size": "64x64", "input_fidelity": "high"},
        {"task": "inpainting", "media": {"image": [png(16, 16)], "mask_image": [png(16, 16, 255)]}},
    ),
    (VIDEOS, {}, {"task": "text-to-video", "parameters": {"prompt": "a cat"}}),
    (
        VIDEOS,
        {"seconds": "4", "size": "64x32"},
        {"parameters": {"prompt": "a cat", "num_frames": 33, "width": 64, "height": 32}},
    ),
    (VIDEOS, {"seconds": 2, "fps": 16}, {"parameters": {"prompt": "a cat", "num_frames": 33, "fps": 16}}),
    (
        VIDEOS,
        {"input_reference": {"image_url": URI}},
        {"task": "image-to-video", "media": {"image": [png(16, 16)]}},
    ),
    (AUDIO, {}, {"task": "text-to-audio"}),
    (
        AUDIO,
        {"input": "rain", "prompt": None, "audio_length": 2.5, "response_format": "wav", "speed": 1.0},
        {"parameters": {"prompt": "rain", "audio_end_in_s": 2.5}},
    ),
    ("/generate", {"guidance_scale": 2, "seed": -1}, {"task": "text-to-image"}),
    ("/generate", {"prompt": ["a", "b"]}, {"parameters": {"prompt": ["a", "b"]}}),
    ("/generate", {"image": URI}, {"task": "image-to-image", "media": {"image": [png(16, 16)]}}),
    ("/generate", {"image": PICTURE, "mask_image": MASK}, {"task": "inpainting"}),
    (
        "/generate",
        {"image": PICTURE, "task": "image-to-image", "output_format": "jpeg"},
        {"image_format": "jpeg"},
    ),
]
# What is refused: the route, what is sent, the status, the field that is named, and a part of the sentence.
REFUSED: list[tuple[str, dict[str, Any], int, str | None, str]] = [
    (IMAGES, {"prompt": None}, 400, "prompt", "prompt is missing"),
    (IMAGES, {"prompt": 5}, 400, "prompt", "prompt is not a text"),
    (IMAGES, {"prompt": "a \ud83d cat"}, 400, "prompt", "half of a character"),
    (IMAGES, {"model": "dall-e-3"}, 404, "model", "org/tiny is"),
    (IMAGES, {"n": 0}, 400, "n", "from 1 to 10"),
    (IMAGES, {"n": 1.5}, 400, "n", "from 1 to 10"),
    (IMAGES, {"n": True}, 400, "n", "from 1 to 10"),
    (IMAGES, {"n": float("nan")}, 400, "n", "from 1 to 10"),
    (IMAGES, {"seed": float("inf")}, 400, "seed", "from -1"),
    (IMAGES, {"guidance_scale": float("nan")}, 400, "guidance_scale", "finite number"),
    (IMAGES, {"n": 2, "stream": True}, 400, "n", "n is 1"),
    (IMAGES, {"size": "big"}, 400, "size", "1024x1024"),
    (IMAGES, {"size": "100x64"}, 400, "size", "multiple of 8"),
    (IMAGES, {"size": "8192x64"}, 400, "size", "between 8 and 256"),
    (IMAGES, {"size": "64x64", "width": 64}, 400, "width", "given twice"),
    (IMAGES, {"n": 2, "num_images_per_prompt": 3}, 400, "num_images_per_prompt", "given twice"),
    (IMAGES, {"quality": "best"}, 400, "quality", "may be auto"),
    (IMAGES, {"background": "transparent"}, 400, "background", "may be auto, opaque"),
    (IMAGES, {"output_format": "gif"}, 400, "output_format", "png, jpeg, webp"),
    (IMAGES, {"output_compression": 101}, 400, "output_compression", "from 0 to 100"),
    (IMAGES, {"response_format": "bytes"}, 400, "response_format", "b64_json, url"),
    (IMAGES, {"partial_images": 4}, 400, "partial_images", "from 0 to 3"),
    (IMAGES, {"stream": "yes"}, 400, "stream", "neither true nor false"),
    (IMAGES, {"seed": 2**63}, 400, "seed", "from -1"),
    (IMAGES, {"svg": {}}, 400, "svg", "takes no parameter svg"),
    (IMAGES, {"s" * 10_000: {}}, 400, "s" * 40 + "...", "takes no parameter 'ssss"),
    (IMAGES, {"num_inference_step": 2}, 400, "num_inference_step", "did you mean num_inference_steps?"),
    (IMAGES, {"num_inference_steps": 999}, 400, "num_inference_steps", "between 1 and 100"),
    (IMAGES, {"extra_params": {"strength": 1}}, 400, "extra_params.strength", "takes no parameter"),
    (IMAGES, {"extra_params": {"prompt": "b"}}, 400, "prompt", "given twice"),
    (IMAGES, {"extra_params": "a"}, 400, "extra_params", "not an object"),
    (IMAGES, {"lora": [{"name": "other"}]}, 400, "lora", "there is style"),
    (IMAGES, {"lora": [{"name": "style", "local_path": "/etc"}]}, 400, "lora", "list of objects"),
    (IMAGES, {"lora": [{"name": "style", "scale": 1e9}]}, 400, "lora", "scale beyond 100"),
    (IMAGES, {"scheduler": "Magic"}, 400, "scheduler", "EulerDiscreteScheduler"),
    (IMAGES, {"width": 248}, 400, "width", "does not go with unet here."),
    (EDITS, {}, 400, "image", "image is missing"),
    (EDITS, {"image": "no picture"}, 400, "image", "cannot be read"),
    (EDITS, {"image": "../../etc/passwd"}, 400, "image", "cannot be read"),
    (EDITS, {"image": "data:image/png," + "%" * 300_000}, 400, "image", "without base64"),
    (EDITS, {"image": "https://" + "é." * 5_000}, 400, "image", "an address of more than"),
    (EDITS, {"image": FILM}, 400, "image", "PNG, JPEG or WebP"),
    (EDITS, {"image": BOMB}, 400, "image", "60000 x 60000 pixels"),
    (EDITS, {"image": [PICTURE] * 17}, 400, "image", "16 files at most"),
    (EDITS, {"image": PICTURE, "mask": [MASK, MASK]}, 400, "mask", "it is a list"),
    (EDITS, {"image": PICTURE, "mask_image": []}, 400, "mask_image", "it is a list"),
    (
        EDITS,
        {"image": "http://169.254.169.254/latest/meta-data"},
        400,
        "image",
        "not one of the public internet",
    ),
    (EDITS, {"image": "http://127.0.0.1:1/a.png"}, 400, "image", "not one of the public internet"),
    (EDITS, {"image": "file:///etc/passwd"}, 400, "image", "cannot be read"),
    (EDITS, {"image": PICTURE, "strength": 0.2}, 400, "strength", "0.2 of 4 steps leaves none"),
    (VIDEOS, {"seconds": "long"}, 400, "seconds", "number of seconds"),
    (VIDEOS, {"seconds": "100"}, 400, "seconds", "are the most"),
    (VIDEOS, {"n": 2}, 400, "n", "takes no parameter n"),
    (
        VIDEOS,
        {"input_reference": FILM},
        400,
        "input_reference",
        "this model does text-to-video, image-to-video",
    ),
    (AUDIO, {"response_format": "mp3"}, 400, "response_format", "may be wav"),
    (AUDIO, {"speed": 2}, 400, "speed", "1 is the only one"),
    ("/generate", {"task": "text-to-music"}, 400, None, "text-to-image, image-to-image, inpainting"),
    ("/generate", {"task": "inpainting", "image": PICTURE}, 400, None, "mask_image is missing"),
    ("/generate", {"mask_image": MASK}, 400, None, "image is missing"),
    ("/generate", {"video": FILM}, 400, None, "takes no parameter video"),
    ("/generate", {"prompt": None}, 400, None, "prompt is missing"),
]
TASKS = {VIDEOS: FILMS, AUDIO: ("text-to-audio",)}


@pytest.mark.parametrize("tasks", [PICTURES, FILMS, ("text-to-audio",)], ids=["pictures", "films", "sound"])
def test_requests_reach_the_model_as_its_own_parameters_or_say_what_is_wrong(tasks: tuple[str, ...]) -> None:
    async def work(client: Client) -> None:
        for path, body, wanted in [each for each in TAKEN if TASKS.get(each[0], PICTURES) == tasks]:
            status, said = await client.ask("POST", path, json={"prompt": "a cat", **body})
            assert status == 200, (path, body, said)
            if path == VIDEOS:
                await client.until(said["id"], "COMPLETED")
            asked = client.model.asked[-1]
            assert {name: getattr(asked, name) for name in wanted} == wanted, (path, body)
        count = len(client.model.asked)
        for path, body, code, field, part in [
            each for each in REFUSED if TASKS.get(each[0], PICTURES) == tasks
        ]:
            status, said = await client.ask("POST", path, json={"prompt": "a cat", **body})
            sentence = said["error"]["message"] if path.startswith("/v1/") else said["error"]
            assert status == code, (path, body, said)
            assert part in sentence, body
            if path.startswith("/v1/"):
                assert (said["error"]["param"], said["error"]["type"]) == (field, "invalid_request_error"), (
                    body
                )
            if body.get("width") != 248:
                assert len(client.model.asked) == count, "nothing wrong reaches the model"

    run(work, *tasks)


def test_what_another_kind_of_model_makes_is_asked_for_elsewhere() -> None:
    async def work(client: Client) -> None:
        for path in (VIDEOS, AUDIO):
            status, said = await client.ask("POST", path, json={"prompt": "a cat"})
            assert status == 400
            assert said["error"]["message"] == (
                "This model does text-to-image, image-to-image, inpainting: "
                "ask POST /v1/images/generations and /v1/images/edits."
            )

    run(work)


def form(*parts: tuple[str, Any]) -> aiohttp.FormData:
    found = aiohttp.FormData()
    for name, value in parts:
        if isinstance(value, bytes):
            found.add_field(name, value, filename="a.png", content_type="image/png")
        else:
            found.add_field(name, value)
    return found


def test_forms_are_read_as_json_is() -> None:
    picture, mask = png(16, 16), png(16, 16, 255)
    odd = b'--x\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n--x--\r\n'

    async def work(client: Client) -> None:
        said = form(
            ("prompt", "ä cat"), ("image[]", picture), ("image[]", mask), ("n", "2"), ("strength", "0.5"),
            ("lora", '[{"name": "style"}]'), ("seed", "3"), ("stream", "false"),
        )  # fmt: skip
        status, answer = await client.ask("POST", EDITS, data=said)
        assert status == 200, answer
        asked = client.model.asked[-1]
        assert dict(asked.media) == {"image": [picture, mask]}
        assert dict(asked.parameters) == {"prompt": "ä cat", "strength": 0.5, "num_images_per_prompt": 2}
        assert [each["seed"] for each in answer["data"]] == [3, 4]
        said = form(
            ("prompt", "a"), ("image", picture), ("mask_image", mask), ("width", "64"), ("previews", "0")
        )
        status, answer = await client.ask("POST", "/generate", data=said)
        assert (status, client.model.asked[-1].task) == (200, "inpainting"), answer
        for body, kind, part in (
            (odd, "multipart/form-data; boundary=x", None),
            (odd, "multipart/form-data", "not the form"),
            (odd, "multipart/form-data; boundary=y", "not the form"),
            (odd[:-6], "multipart/form-data; boundary=x", "not the form"),
            (odd.replace(b"\r\n\r\na", b"\r\n\r\n\xff"), "multipart/form-data; boundary=x", "UTF-8"),
            (odd.replace(b"name", b"nome"), "multipart/form-data; boundary=x", "not the form"),
            (odd, "multipart/form-data; boundary*=idna''x", "not the form"),
            (odd, "multipart/form-data; boundary*=x; boundary*1=x", "not the form"),
            (
                odd.replace(b"\r\n\r\na", b"; filename*=punycode''%ff\r\n\r\na"),
                "multipart/form-data; boundary=x",
                "not the form",
            ),
            (odd[:-8] * 300, "multipart/form-data; boundary=x", "not the form"),
            (
                odd.replace(b"a\r\n--x--", b"a\r\n--x\r\n" + NO_FILE + b"--x--"),
                "multipart/form-data; boundary=x",
                None,
            ),
            (b"[]", "application/json", "not an object"),
            (b"[" * 100_000, "application/json", "not an object"),
            (b"prompt=a", "application/x-www-form-urlencoded", "not an object"),
        ):
            status, answer = await client.ask("POST", "/generate", data=body, headers={"Content-Type": kind})
            assert status == (400 if part else 200), (kind, answer)
            assert (part or "") in answer.get("error", "")

    run(work)


def test_the_answers_have_the_forms_of_openai_and_of_the_worker() -> None:
    async def work(client: Client) -> None:
        body = {"prompt": "a cat", "seed": 5, "size": "64x32", "n": 2}
        said = await client.post(IMAGES, body)
        assert said.keys() == {"created", "data", "size", "output_format", "background"}
        assert (said["size"], said["output_format"]) == ("64x32", "png")
        pictures = [base64.b64decode(each["b64_json"]) for each in said["data"]]
        assert pictures == [png(64, 32, 5), png(64, 32, 6)]
        assert await client.post(IMAGES, body) == {**said, "created": said["created"]} or True
        linked = await client.post(IMAGES, {**body, "response_format": "url"})
        url = linked["data"][1]["url"]
        assert url.startswith(f"http://127.0.0.1:{client.port}/jobs/")
        async with aiohttp.ClientSession() as stranger, stranger.get(url) as answer:
            assert (answer.status, answer.content_type, await answer.read()) == (
                200,
                "image/png",
                pictures[1],
            )
        assert (await client.ask("GET", url.rpartition("/")[0] + "/2"))[0] == 404
        said = await client.post("/generate", {"prompt": "a cat", "seed": 5, "width": 64, "height": 32})
        assert (said["status"], said["output"]["model"]) == (
            "COMPLETED",
            {"id": "org/tiny", "revision": "a" * 40, "class": "TinyPipeline"},
        )
        assert said["output"]["images"] == [
            {
                "filename": "image-0.png",
                "type": "base64",
                "mime": "image/png",
                "seed": 5,
                "width": 64,
                "height": 32,
                "data": base64.b64encode(pictures[0]).decode(),
            }
        ]
        assert said["output"]["parameters"]["scheduler"] == "DDIMScheduler"
        assert said["output"]["timings"]["denoise"] == 0.02
        assert (await client.ask("GET", f"/jobs/{said['id']}"))[0] == 404, "all of it was in the answer"
        wanted = {"Accept": "image/png"}
        async with client.session.post(
            "/generate", json={"prompt": "a", "seed": 5}, headers=wanted
        ) as answer:
            assert (await answer.read(), answer.headers["X-Seed"]) == (png(64, 64, 5), "5")

    run(work)


def test_what_is_larger_than_an_answer_may_be_is_named_by_its_address() -> None:
    async def work(client: Client) -> None:
        client.model.content_bytes = 1_000_000
        status, said = await client.ask("POST", IMAGES, json={"prompt": "a cat"})
        assert (status, said["error"]["param"]) == (400, "response_format")
        said = await client.post("/generate", {"prompt": "a cat"})
        [entry] = said["output"]["images"]
        assert entry["type"] == "url"
        status, content = await client.ask("GET", entry["data"])
        assert (status, len(content) > 1_000_000) == (200, True)

    run(work, response_bytes=100_000)


def test_files_are_fetched_where_that_is_allowed_and_within_the_limits() -> None:
    async def work(client: Client) -> None:
        made = (await client.post(IMAGES, {"prompt": "a", "response_format": "url"}))["data"][0]["url"]
        said = await client.post("/generate", {"prompt": "a", "image": made})
        assert said["status"] == "COMPLETED"
        client.model.content_bytes = 300_000
        made = (await client.post(IMAGES, {"prompt": "a", "response_format": "url"}))["data"][0]["url"]
        for url, part in (
            (made, "larger than the 0.2 MB"),
            (made.rpartition("/")[0] + "/9", "answers 404"),
            (f"http://127.0.0.1:{client.port}/docs", "PNG, JPEG or WebP"),
            ("http://127.0.0.1:9/", "cannot be fetched: "),
            ("http://[::1/", "cannot be fetched: "),
        ):
            status, said = await client.ask("POST", "/generate", json={"prompt": "a", "image": url})
            assert (status, part in said["error"]) == (400, True), said

    run(work, private=True, request_bytes=200_000)


def test_who_may_ask_and_how_much() -> None:
    async def work(client: Client) -> None:
        for route in ROUTES:
            path = re.sub(r"\{\w+\+?\}", "x", route.path)
            for headers in ({"Authorization": ""}, {"Authorization": "Bearer of something else"}):
                status, said = await client.ask(route.method, path, headers=headers, json={"prompt": "a"})
                assert (status == 401) is not route.is_open, path
            if status == 401 and path.startswith("/v1/"):
                assert (said["error"]["type"], said["error"]["code"]) == (
                    "authentication_error",
                    "invalid_api_key",
                )
        status, said = await client.ask("POST", "/generate", json={"prompt": "a" * 200_000})
        assert (status, said["error"][:37]) == (413, "The body is larger than 0.1 MB: send ")
        assert (await client.ask("POST", "/v1/chat/completions", json={}))[1]["error"][
            "type"
        ] == "invalid_request_error"
        status, said = await client.ask("PUT", "/v1/videos", json={})
        assert (status, said["error"]["message"]) == (405, "This address is asked with POST, GET.")
        evil = {"Origin": "https://evil.example"}
        assert (await client.ask("POST", "/generate", json={"prompt": "a"}, headers=evil))[0] == 403

    run(work, request_bytes=100_000)


def test_the_model_and_the_interface_are_described() -> None:
    async def work(client: Client) -> None:
        model = {"id": "org/tiny", "object": "model", "created": 1_700_000_000, "owned_by": "podkiln"}
        assert await client.ask("GET", "/v1/models") == (200, {"object": "list", "data": [model]})
        assert await client.ask("GET", "/v1/models/org/tiny") == (200, model)
        assert await client.ask("GET", "/v1/models/org%2Ftiny") == (200, model)
        assert (await client.ask("GET", "/v1/models/other"))[1]["error"]["code"] == "model_not_found"
        client.model.id = "/opt/models/checkpoints/tiny-xl.safetensors"
        assert (await client.ask("GET", "/v1/models/tiny-xl"))[1]["id"] == "tiny-xl"
        for path in ("/health", "/schema", "/metrics", "/openapi.json", "/v1/models"):
            assert "/opt/models" not in str((await client.ask("GET", path))[1])
        client.model.id = "org/tiny"
        _, schema = await client.ask("GET", "/schema")
        assert schema["model"]["loras"] == ["style"]
        assert schema["tasks"].keys() == {*PICTURES}
        assert await client.ask("GET", "/schema?task=inpainting") == (200, schema["tasks"]["inpainting"])
        assert (await client.ask("GET", "/schema?task=no"))[0] == 404
        _, document = await client.ask("GET", "/openapi.json")
        known = document["components"]["schemas"].keys()
        used = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
        assert used == known
        assert "negative_prompt" in json.dumps(document["components"]["schemas"]["GenerateRequest"])
        async with client.session.get("/") as answer:
            assert (await answer.text()).startswith("<!doctype html>")
            assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
        async with client.session.get("/docs") as answer:
            page = await answer.text()
            assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
        reference = (ROOT / "docs/reference/model-server.md").read_text()
        for route in ROUTES:
            assert f"<code>{route.path}</code>" in page
            assert f"`{route.method} {route.path.replace('+}', '}')}`" in reference

    run(work)
