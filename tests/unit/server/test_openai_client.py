"""OpenAI's own client, asked as its users ask it."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import openai
import pytest
from unit.server.fake_model import FILMS, PREVIEW, png
from unit.server.http_model import TOKEN, run

if TYPE_CHECKING:
    from unit.server.http_model import Client


def test_pictures_are_made_and_edited_and_the_model_is_listed() -> None:
    async def work(client: Client) -> None:
        async with openai.AsyncOpenAI(
            base_url=f"http://127.0.0.1:{client.port}/v1", api_key=TOKEN, max_retries=0
        ) as api:
            assert [each.id async for each in await api.models.list()] == ["org/tiny"]
            assert (await api.models.retrieve("org/tiny")).owned_by == "podkiln"
            more = {"num_inference_steps": 2, "seed": 5, "lora": [{"name": "style", "scale": 0.5}]}
            made = await api.images.generate(
                prompt="a cat",
                model="org/tiny",
                n=2,
                size="64x32",
                extra_body=more,
            )
            pictures = [base64.b64decode(each.b64_json or "") for each in made.data or []]
            assert pictures == [png(64, 32, 5), png(64, 32, 6)]
            files = [("a.png", each) for each in pictures]
            edited = await api.images.edit(
                image=files, prompt="ä cat", response_format="url", extra_body={"strength": 0.5}
            )
            asked = client.model.asked[-1]
            assert (dict(asked.media), asked.parameters["strength"]) == ({"image": pictures}, 0.5)
            url = (edited.data or [])[0].url
            assert url is not None
            assert (await client.ask("GET", url))[0] == 200
            await api.images.edit(image=files[0], mask=files[1], prompt="a cat")
            assert client.model.asked[-1].task == "inpainting"
            events = [
                each
                async for each in await api.images.generate(
                    prompt="a cat", stream=True, partial_images=1, extra_body={"seed": 5}
                )
            ]
            assert events[-1].type == "image_generation.completed"
            assert base64.b64decode(events[-1].b64_json) == png(64, 64, 5)
            assert [each.b64_json for each in events[:-1]] in ([], [base64.b64encode(PREVIEW).decode()])
            with pytest.raises(openai.BadRequestError) as refused:
                await api.images.generate(prompt="a cat", extra_body={"steps": 2})
            assert (refused.value.param, refused.value.code) == ("steps", "unknown_parameter")
            with pytest.raises(openai.NotFoundError, match="org/tiny is"):
                await api.images.generate(prompt="a cat", model="dall-e-3")
            with pytest.raises(openai.AuthenticationError):
                await api.with_options(api_key="another").models.list()

    run(work)


@pytest.mark.filterwarnings("ignore:The Sora API")  # OpenAI's own; vLLM-Omni and SGLang go on with it
def test_videos_are_waited_for_and_downloaded() -> None:
    async def work(client: Client) -> None:
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{client.port}/v1", api_key=TOKEN) as api:
            begun = await api.videos.create(
                prompt="waves", seconds="4", input_reference=("a.png", png(16, 16))
            )
            async with asyncio.timeout(20):
                made = await api.videos.poll(begun.id, poll_interval_ms=10)
            assert (made.status, made.progress, made.seconds) == ("completed", 100, "4.12")
            assert client.model.asked[-1].task == "image-to-video"
            content = await api.videos.download_content(made.id)
            assert content.read()[4:12] == b"ftypmp42"
            assert [each.id async for each in await api.videos.list()] == [made.id]
            assert (await api.videos.delete(made.id)).deleted
            with pytest.raises(openai.NotFoundError):
                await api.videos.retrieve(made.id)

    run(work, *FILMS)
