"""The door before ComfyUI, in a real browser: its own page works, and pages of other origins get nothing.

The browser comes as it does to rented machines: by a provider's https, where all pods are one site; by plain
http, where all ports of one address are one site; through an ssh tunnel; with a login and without one.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import http.server
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import browser
import browser_proxies
import pytest
from containers import PORT, Container

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from browser import Session
    from images import Image

pytestmark = pytest.mark.engine
USER, PASSWORD = "me", "s3cret+/é"
LOGIN = {"WEB_USER": USER, "WEB_PASSWORD": PASSWORD}
# A PNG of one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
POD, TUNNEL = "pod-8188.proxy.pods.test", "localhost"


@dataclass(frozen=True)
class Place:
    """A pod as a browser sees it: scheme, name and port."""

    pod: Container
    scheme: str
    host: str
    port: int
    login: bool

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def entrance(self) -> str:
        """The address that logs in, as a browser takes it once."""
        who = f"{USER}:s3cret%2B%2F%C3%A9@" if self.login else ""
        return f"{self.scheme}://{who}{self.host}:{self.port}/"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    return browser_proxies.certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser.chromium(tmp_path_factory.mktemp("chromium")) as address:
        yield address


@pytest.fixture(scope="module")
def places(lazy: Image, tls: ssl.SSLContext) -> Iterator[dict[str, Place]]:
    """Two pods, one with a login, each in all the places where browsers find pods."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind, env in (("login", LOGIN), ("open", {})):
            pod = stack.enter_context(Container(lazy.name, env={**env, "MODELS": "none"}))
            pod.wait_log("podkiln: ready in")
            pod.exec(
                "sh", "-c", f"echo {base64.b64encode(PIXEL).decode()} | base64 -d >/workspace/input/own.png"
            )
            to = (pod.address, PORT)
            ways: list[tuple[str, str, ssl.SSLContext | None, str | None]] = [
                ("https", POD, tls, "https"),
                ("unsaid https", POD, tls, None),
                ("http", POD, None, None),
                ("tunnel", TUNNEL, None, None),
            ]
            for name, host, with_tls, says in ways:
                port = stack.enter_context(browser_proxies.front(to, with_tls, says=says))
                scheme = "https" if with_tls else "http"
                found[f"{name}, {kind}"] = Place(pod, scheme, host, port, kind == "login")
        yield found


@pytest.fixture(scope="module")
def strangers(tls: ssl.SSLContext) -> Iterator[dict[str, int]]:
    """Ports at which somebody else answers, by scheme."""
    with browser_proxies.stranger(tls) as https, browser_proxies.stranger() as http:
        yield {"https": https, "http": http}


KINDS = ("login", "open")
PLACES = [f"{way}, {kind}" for kind in KINDS for way in ("https", "unsaid https", "http", "tunnel")]

# What a page can try; each answers "failed", or what it got.
TRIES = """
(async (pod) => {
  const ask = (path, more) => fetch(pod + path, {credentials: 'include', ...more})
    .then(async answer => `${answer.type} ${answer.status} ${(await answer.text()).length}`, () => 'failed');
  const upload = (name) => {
    const form = new FormData();
    form.append('image', new Blob(['x'.repeat(1 << 20)]), name);
    return form;
  };
  const event = (thing, good, bad) => new Promise(done => {
    thing[`on${good}`] = () => done(good);
    thing[`on${bad}`] = () => done('failed');
  });
  const image = new Image();
  const picture = event(image, 'load', 'error');
  image.src = `${pod}/view?type=input&filename=own.png`;
  const element = document.createElement('script');
  const script = event(element, 'load', 'error');
  element.src = `${pod}/system_stats`;
  document.head.append(element);
  const connect = () =>
    event(new WebSocket(`${pod.replace('http', 'ws')}/ws?clientId=x`), 'message', 'close');
  const socket = Promise.resolve().then(connect).catch(() => 'failed');
  return {
    read: await ask('/system_stats'),
    download: await ask('/view?type=input&filename=own.png', {mode: 'no-cors'}),
    picture: await picture,
    script: await script,
    socket: await socket,
    write: await ask('/upload/image', {method: 'POST', body: upload('by-fetch.png')}),
    blind: await ask('/upload/image', {method: 'POST', mode: 'no-cors', body: upload('blind.png')}),
    asked: await ask('/queue', {method: 'POST', headers: {'X-Forwarded-Host': location.host}, body: '{}'}),
  };
})(%s)
"""
# A form needs no script's leave to send a file anywhere.
FORM = """
(async (pod) => {
  const form = Object.assign(document.createElement('form'),
    {action: `${pod}/upload/image`, method: 'POST', enctype: 'multipart/form-data', target: 'there'});
  const frame = Object.assign(document.createElement('iframe'), {name: 'there'});
  const input = Object.assign(document.createElement('input'), {type: 'file', name: 'image'});
  const files = new DataTransfer();
  files.items.add(new File(['x'], 'form.png'));
  input.files = files.files;
  form.append(input);
  document.body.append(frame, form);
  const loaded = new Promise(done => { frame.onload = done; setTimeout(done, 500); });
  form.submit();
  await loaded;
})(%s)
"""
FRAMES = """
(async (pod) => {
  await Promise.all(['iframe', 'embed', 'object'].map(kind => {
    const frame = document.createElement(kind);
    frame[kind == 'object' ? 'data' : 'src'] = pod + '/';
    document.body.append(frame);
    return new Promise(done => { frame.onload = done; frame.onerror = done; setTimeout(done, 500); });
  }));
})(%s)
"""
FOLLOW = "(async (to) => Object.assign(document.createElement('a'), {href: to}).click())(%s)"


def inputs(pod: Container) -> set[str]:
    return set(pod.exec("ls", "/workspace/input").stdout.split())


@pytest.mark.parametrize("name", PLACES)
def test_the_page_of_the_pod_works(name: str, places: dict[str, Place], chromium: str) -> None:
    """Login, reading, uploads, websockets and downloads."""
    place = places[name]

    async def scene(session: Session) -> Any:
        page = await session.tab(place.entrance)
        assert await page.run("document.title") == "ComfyUI"
        return await page.run(TRIES % json.dumps(place.origin))

    got = browser.visit(chromium, scene)
    assert {each: what for each, what in got.items() if what == "failed"} == {}
    assert got["read"].startswith("basic 200 ")
    assert got["download"] == f"basic 200 {len(PIXEL.decode(errors='replace'))}"
    assert got["write"].startswith("basic 200 ")
    assert {"by-fetch.png", "blind.png"} <= inputs(place.pod)
    place.pod.exec("sh", "-c", "rm /workspace/input/by-fetch.png /workspace/input/blind.png")


def others(place: Place, strangers: dict[str, int]) -> list[str]:
    """Return origins that are not the pod's: another port, sub-domain, site and scheme."""
    hosts = (place.host, "evil-8188.proxy.pods.test", "evil.test")
    same = [f"{place.scheme}://{host}:{strangers[place.scheme]}" for host in hosts]
    other = "http" if place.scheme == "https" else "https"
    return [*same, f"{other}://{place.host}:{strangers[other]}"]


@pytest.mark.parametrize("name", PLACES)
def test_pages_of_other_origins_get_nothing(
    name: str, places: dict[str, Place], strangers: dict[str, int], chromium: str
) -> None:
    """While the pod's own page is open in the same browser, logged in."""
    place = places[name]
    before = inputs(place.pod)

    async def scene(session: Session) -> Any:
        await session.tab(place.entrance)
        origins = others(place, strangers)
        return dict(
            zip(origins, await asyncio.gather(*(tried(session, each) for each in origins)), strict=True)
        )

    async def tried(session: Session, origin: str) -> dict[str, Any]:
        page = await session.tab(f"{origin}/")
        got = await page.run(TRIES % json.dumps(place.origin))
        await page.run(FORM % json.dumps(place.origin))
        await page.run(FRAMES % json.dumps(place.origin))
        shown = [each for each in await page.frames() if each.startswith(place.origin)]
        # The answer to a blind request is hidden from a page; that nothing was written is seen below.
        got = {each: what for each, what in got.items() if what not in ("failed", "opaque 0 0")}
        return {**got, "frames": shown} if shown else got

    assert {origin: got for origin, got in browser.visit(chromium, scene).items() if got} == {}
    assert inputs(place.pod) == before


@pytest.mark.parametrize("name", PLACES)
def test_a_link_of_another_page_opens_the_page_at_the_first_click(
    name: str, places: dict[str, Place], strangers: dict[str, int], chromium: str
) -> None:
    place = places[name]

    async def scene(session: Session) -> None:
        await session.tab(place.entrance)
        await asyncio.gather(*(follow(session, each) for each in others(place, strangers)))

    async def follow(session: Session, origin: str) -> None:
        page = await session.tab(f"{origin}/")
        await page.run(FOLLOW % json.dumps(f"{place.origin}/?from=there"))
        there = f"location.href == '{place.origin}/?from=there' && document.title == 'ComfyUI'"
        await page.until(f"{there} && document.body !== null")  # which comes after the title
        assert await page.run("document.body.innerText") == ""

    browser.visit(chromium, scene)


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_to_anything_else_needs_a_second_click(
    kind: str, places: dict[str, Place], strangers: dict[str, int], chromium: str
) -> None:
    """Addresses of custom nodes may do something when they are asked for."""
    place = places[f"https, {kind}"]

    async def scene(session: Session) -> None:
        await session.tab(place.entrance)
        page = await session.tab(f"https://evil.test:{strangers['https']}/")
        await page.run(FOLLOW % json.dumps(f"{place.origin}/view?type=input&filename=own.png"))
        await page.until("document.body.innerText.startsWith('A page of another site leads here.')")
        await page.run("document.querySelector('a').click()")
        await page.until("document.contentType == 'image/png'")

    browser.visit(chromium, scene)


@pytest.mark.parametrize(("way", "session"), [("https", 1), ("unsaid https", 0), ("http", 0), ("tunnel", 0)])
def test_the_session_is_told_only_where_nobody_else_gets_it(
    way: str, session: int, places: dict[str, Place], chromium: str
) -> None:
    """By plain http, all ports of a machine get a cookie that one of them sets; that one opens nothing."""
    place = places[f"{way}, login"]

    async def scene(browsing: Session) -> Any:
        await browsing.tab(place.entrance)
        return await browsing.cookies()

    (kept,) = browser.visit(chromium, scene)
    assert (kept["name"] == "__Host-podkiln", kept["secure"]) == (bool(session), bool(session))
    assert (kept["httpOnly"], kept["sameSite"]) == (True, "Lax")
    assert kept["name"].startswith(("__Host-podkiln", "podkiln-"))


AHEAD = """
(async (to) => {
  const rules = Object.assign(document.createElement('script'), {type: 'speculationrules'});
  const list = (url) => [{source: 'list', urls: [url], eagerness: 'immediate'}];
  rules.textContent = JSON.stringify({prefetch: list(to), prerender: list(to + '?prerender')});
  document.head.append(rules);
  await new Promise(done => setTimeout(done, 2500));
})(%s)
"""


def test_what_a_page_has_a_browser_fetch_ahead_is_no_visit(
    places: dict[str, Place], strangers: dict[str, int], chromium: str
) -> None:
    """The browser says of it what it says of an address that was typed, but for one header."""
    asked: list[dict[str, str]] = []

    class Recorder(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(dict(self.headers))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    async def scene(browsing: Session) -> None:
        page = await browsing.tab(f"http://localhost:{strangers['http']}/")
        await page.run(AHEAD % json.dumps(f"http://localhost:{server.server_port}/free"))

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser.visit(chromium, scene)
        server.shutdown()
    assert {each["Sec-Purpose"] for each in asked} == {"prefetch", "prefetch;prerender"}
    pod = places["tunnel, open"].pod
    for headers in asked:
        typed = {name: value for name, value in headers.items() if name != "Sec-Purpose"}
        for told, status in ((headers, 403), (typed, 200)):
            with contextlib.closing(http.client.HTTPConnection(pod.address, PORT, timeout=10)) as connection:
                connection.request("GET", "/system_stats", headers=told)
                assert connection.getresponse().status == status
