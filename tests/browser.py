"""A real browser for tests: Debian's Chromium without a window, spoken to over the DevTools protocol.

Every name below `.test` is this machine, so that a test may have as many origins as it wants. Protocol:
chromedevtools.github.io/devtools-protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

_NAMES = ("chromium", "google-chrome", "chromium-browser")
_OPTIONS = (
    "--headless",
    "--no-sandbox",  # it runs as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--ignore-certificate-errors",
    "--remote-debugging-port=0",
    "--host-resolver-rules=MAP *.test 127.0.0.1",
)
_WITHOUT_NETLINK = Path(__file__).parent / "without_netlink.py"
_PATIENCE = 60.0  # seconds; Chromium itself gives a handshake 30


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[str]:
    """Run a browser whose profile lies in a folder; yields the address of its DevTools."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    assert program, "no Chromium here: scripts/host/ensure_engine.sh --with-tests installs it"
    with (folder / "log").open("wb") as log:
        argv = [
            sys.executable,
            str(_WITHOUT_NETLINK),
            program,
            *_OPTIONS,
            f"--user-data-dir={folder}",
            "about:blank",
        ]
        process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            told = folder / "DevToolsActivePort"
            end = time.monotonic() + _PATIENCE
            while not told.is_file() or len(told.read_text().split()) < 2:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
            port, path = told.read_text().split()
            yield f"ws://127.0.0.1:{port}{path}"
        finally:
            process.terminate()
            process.wait(10)


class Session:
    """A fresh profile in a browser: its own cookies and passwords."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._context = ""
        self._reader = asyncio.create_task(self._read())

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, address: str) -> AsyncGenerator[Self]:
        """Open one in the browser whose DevTools are there."""
        async with aiohttp.ClientSession() as web, web.ws_connect(address, max_msg_size=0) as socket:
            self = cls(socket)
            self._context = (await self.send("Target.createBrowserContext"))["browserContextId"]
            try:
                yield self
            finally:
                await self.send("Target.disposeBrowserContext", browserContextId=self._context)
                self._reader.cancel()

    async def tab(self, url: str) -> Tab:
        """Open an address in a tab of its own, and wait until it is there."""
        target = await self.send("Target.createTarget", url="about:blank", browserContextId=self._context)
        told = await self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, told["sessionId"])
        await tab.go(url)
        return tab

    async def frames(self) -> list[str]:
        """Return the addresses of frames in processes of their own that show what they were asked to."""
        found = (await self.send("Target.getTargets"))["targetInfos"]
        shown = []
        for each in found:
            if each["type"] == "iframe" and each["browserContextId"] == self._context:
                told = await self.send("Target.attachToTarget", targetId=each["targetId"], flatten=True)
                tree = (await self.send("Page.getFrameTree", told["sessionId"]))["frameTree"]
                shown += [] if tree["frame"].get("unreachableUrl") else [tree["frame"]["url"]]
        return shown

    async def cookies(self) -> list[dict[str, Any]]:
        """Return all cookies that are kept."""
        return list((await self.send("Storage.getCookies", browserContextId=self._context))["cookies"])

    async def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Ask the browser something and return what it says."""
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json({**message, "sessionId": session} if session else message)
        answer = await asyncio.wait_for(self._waiting[number], _PATIENCE)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    async def _read(self) -> None:
        async for message in self._socket:
            answer = json.loads(message.data)
            if waiting := self._waiting.pop(answer.get("id", 0), None):
                waiting.set_result(answer)
            elif "method" in answer:
                self.events.append(answer)


class Tab:
    """A page in a tab."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name

    async def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser something about this page."""
        return await self._session.send(method, self._name, **parameters)

    async def go(self, url: str) -> None:
        """Open an address as if it was typed."""
        error = (await self._session.send("Page.navigate", self._name, url=url)).get("errorText")
        assert not error, f"{url}: {error}"
        await self.until("document.readyState == 'complete' && location.href != 'about:blank'")

    async def run(self, script: str) -> Any:
        """Evaluate JavaScript, as after a click; a promise is waited for."""
        told = await self._session.send(
            "Runtime.evaluate",
            self._name,
            expression=script,
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until a condition in JavaScript holds; a page that is just leaving has none."""
        end = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(AssertionError):
                if await self.run(condition):
                    return
            assert time.monotonic() < end, f"{condition} is not so at {await self.run('location.href')}"
            await asyncio.sleep(0.05)

    async def frames(self) -> list[str]:
        """Return the addresses of the frames in this page that show what they were asked to."""
        tree = (await self._session.send("Page.getFrameTree", self._name))["frameTree"]
        here = [
            child["frame"]["url"]
            for child in tree.get("childFrames", ())
            if not child["frame"].get("unreachableUrl")
        ]
        return [*here, *await self._session.frames()]


def visit(address: str, scene: Callable[[Session], Any]) -> Any:
    """Play a scene in a fresh session; returns what it returns."""

    async def play() -> Any:
        async with Session.of(address) as session:
            return await scene(session)

    return asyncio.run(play())
