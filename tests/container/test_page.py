"""The page of the server of a model, in a real browser, against a server that plays its part."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import browser
import pytest
from servers.model_server import TOKEN, ModelServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from browser import Session, Tab

pytestmark = pytest.mark.engine

PICTURE = """
(async () => {
  const picture = document.querySelector('.outputs img');
  await picture.decode();
  return [picture.naturalWidth, picture.alt];
})()
"""
COLOURS = "['background-color', 'color'].map(each => getComputedStyle(document.documentElement)[each])"
# A file is pasted, as from a screenshot.
PASTE = """
(() => {
  const files = new DataTransfer();
  const content = new Uint8Array([137, 80, 78, 71]);
  files.items.add(new File([content], '%s', {type: 'image/png'}));
  document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: files, cancelable: true}));
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@contextlib.asynccontextmanager
async def opened(session: Session, server: ModelServer, token: str = TOKEN) -> AsyncGenerator[Tab]:
    """Open the page until its form is there. Until the end nothing may be asked of others, or go wrong."""
    async with server.running():
        tab = await session.tab("about:blank#")
        for domain in ("Runtime", "Log", "Network"):
            await tab.ask(f"{domain}.enable")
        await tab.go(f"{server.origin}/")
        if token:
            await tab.run(f"sessionStorage.setItem('token', '{token}')")
        await tab.until("document.getElementById('f-prompt') !== null")
        yield tab
        await asyncio.sleep(0.1)
        assert faults(session.events, server.origin) == []


def faults(events: list[dict[str, Any]], origin: str) -> list[str]:
    """Return what was logged, thrown, forbidden, or asked of others."""
    found = []
    for event in events:
        method, said = event["method"], event["params"]
        if method in {"Runtime.exceptionThrown", "Runtime.consoleAPICalled"} or (
            method == "Log.entryAdded" and said["entry"]["source"] != "network"
        ):
            found.append(json.dumps(said))
        elif method == "Network.requestWillBeSent":
            url = said["request"]["url"]
            if not url.startswith((f"{origin}/", f"blob:{origin}/", "data:", "about:")):
                found.append(url)
    return found


async def press(tab: Tab, key: str, code: int, modifiers: int = 0) -> None:
    """Press a key; `modifiers`: 2 is Ctrl."""
    text = {"text": "\r"} if key == "Enter" and not modifiers else {}
    common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
    await tab.ask("Input.dispatchKeyEvent", type="keyDown", **common, **text)
    await tab.ask("Input.dispatchKeyEvent", type="keyUp", **common)


async def submit(tab: Tab) -> None:
    await press(tab, "Enter", 13, 2)


async def fill(tab: Tab, name: str, text: str) -> None:
    """Type into a field in place of what it holds."""
    await tab.run(f"document.getElementById('f-{name}').select()")
    await tab.ask("Input.insertText", text=text)


async def shown(tab: Tab, selector: str) -> str:
    return str(await tab.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))


def test_a_picture_is_made_with_the_keyboard_alone(chromium: str) -> None:
    """While the model loads, without a token, with one, and again with the same seed."""
    server = ModelServer(loading=1, pause=0.1)

    async def scene(session: Session) -> None:
        async with opened(session, server, token="") as tab:
            for _ in range(12):
                if await tab.run("document.activeElement.id") == "f-prompt":
                    break
                await press(tab, "Tab", 9)
            await tab.ask("Input.insertText", text="Hills")
            await submit(tab)
            await tab.until("document.getElementById('dialog').open")
            await tab.ask("Input.insertText", text=TOKEN)
            await press(tab, "Enter", 13)
            await tab.until("!document.getElementById('dialog').open")
            await tab.run(
                "window.told = new Set();"
                "new MutationObserver(() => told.add(document.getElementById('live').textContent))"
                ".observe(document.getElementById('live'), {childList: true})"
            )
            await submit(tab)
            await tab.until("document.querySelector('.outputs img') !== null")
            assert await tab.run(PICTURE) == [64, "Result, seed 7"]
            told = await tab.run("[...told]")
            assert any(each.startswith("Step ") for each in told), told
            assert told[-1].startswith("Done in "), told
            assert server.asked == [{"task": "text-to-image", "prompt": "Hills", "previews": True}]
            await tab.run("document.querySelector('[title=\"Use this seed again\"]').click()")
            await fill(tab, "num_images_per_prompt", "2")
            await submit(tab)
            await tab.until("document.querySelectorAll('.outputs img').length == 2")
            assert server.asked[-1] == {**server.asked[0], "seed": 7, "num_images_per_prompt": 2}
            assert await tab.run("document.querySelectorAll('#strip button').length") == 2

    browser.visit(chromium, scene)


def test_what_is_wrong_is_said_at_its_field_and_a_run_can_be_cancelled(chromium: str) -> None:
    server = ModelServer(steps=400, pause=0.05)

    async def scene(session: Session) -> None:
        async with opened(session, server) as tab:
            await submit(tab)
            assert await shown(tab, "#f-prompt-problem") == "This is needed."
            await fill(tab, "prompt", "a teapot")
            await fill(tab, "width", "1001")
            await submit(tab)
            assert await shown(tab, "#f-width-problem") == "A multiple of 8: 1000 or 1008."
            assert await tab.run("document.activeElement.id") == "f-width"
            await fill(tab, "width", "1000")
            await submit(tab)
            await tab.until("!document.getElementById('f-guidance_scale-problem').hidden")
            assert (
                await shown(tab, "#f-guidance_scale-problem") == "guidance_scale has to be 418 for a teapot."
            )
            assert server.asked == []
            await fill(tab, "prompt", "Hills")
            await submit(tab)
            await tab.until("/^Step /.test(document.querySelector('.counts span')?.textContent)")
            await press(tab, "Escape", 27)
            await tab.until("document.querySelector('.empty') !== null")
            assert server.cancelled == ["job-1"]
            assert await tab.run("document.getElementById('cancel').hidden")

    browser.visit(chromium, scene)


def test_pictures_are_sent_and_curl_says_the_same(chromium: str) -> None:
    server = ModelServer()

    async def scene(session: Session) -> None:
        async with opened(session, server) as tab:
            await fill(tab, "prompt", "It's dusk")
            assert '-d \'{"task":"text-to-image","prompt":"It\'\\\'\'s dusk"}\'' in await tab.run(
                "curl(asked())"
            )
            await tab.run("document.querySelector('[value=inpainting]').click()")
            assert await tab.run("document.getElementById('f-prompt').value") == "It's dusk"
            await submit(tab)
            assert await shown(tab, "#f-mask_image-problem") == "A picture is needed."
            for name in ("photo.png", "mask.png"):
                await tab.run(PASTE % name)
                await tab.until(
                    f"[...document.querySelectorAll('.thumb img')].some(each => each.alt == '{name}')"
                )
            words = await tab.run("curl(asked())")
            assert f"curl -fsS '{server.origin}/generate'" in words
            # With -F a prompt that begins with @ or < would be read as the name of a file.
            texts = {"--form-string 'task=inpainting'", "--form-string 'prompt=It'\\''s dusk'"}
            assert texts | {"-F 'image=@photo.png'", "-F 'mask_image=@mask.png'"} <= {
                each.strip(" \\") for each in words.splitlines()
            }
            await submit(tab)
            await tab.until("document.querySelector('.outputs img') !== null")
            (asked,) = server.asked
            assert (asked["task"], asked["image"]) == ("inpainting", "data:image/png;base64,iVBORw==")

    browser.visit(chromium, scene)


def test_it_fits_a_phone_and_the_night(chromium: str) -> None:
    server = ModelServer()

    async def scene(session: Session) -> None:
        async with opened(session, server) as tab:
            await tab.ask(
                "Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True
            )
            colours = []
            for scheme in ("light", "dark"):
                features = [{"name": "prefers-color-scheme", "value": scheme}]
                await tab.ask("Emulation.setEmulatedMedia", features=features)
                colours.append(await tab.run(COLOURS))
            assert all(light != dark for light, dark in zip(*colours, strict=True)), colours
            for task in ("text-to-image", "inpainting"):
                await tab.run(f"document.querySelector('[value={task}]').click()")
                await tab.run("document.querySelector('details').open = true")
                await tab.run("document.querySelectorAll('.head .icon').forEach(each => each.click())")
                assert await tab.run("document.documentElement.scrollWidth") == 360

    browser.visit(chromium, scene)
