"""What comes back from a registry: an answer in pieces, within limits, and how one fails."""

from __future__ import annotations

import contextlib
import http.client
import re
import time
from typing import TYPE_CHECKING, Final

from pod.net.http import TransientError
from pod.net.response_head import UnfinishedError
from podkiln.registry import urls
from podkiln.registry.errors import ExchangeError
from podkiln.registry.trickle import LeastRate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pod.net.response_head import TimedResponse

_FOLD: Final = re.compile(r"\r?\n[ \t]+")  # a header on several lines (RFC 9112, 5.2)


class Incoming:
    """An answer whose body is still to come. Names of headers are in lower case."""

    def __init__(self, url: str, response: TimedResponse, end: Callable[..., None], seconds: float) -> None:
        self.url = url
        self.status = response.status
        self.headers = _headers(response.msg)
        self._response = response
        self._end: Callable[..., None] | None = end
        self._seconds = seconds  # for the next bytes of a body
        self._body: bytes | None = None

    def close(self) -> None:
        """Keep the connection for another request if the body was read to its end, else end it."""
        end, self._end = self._end, None
        if end:
            reusable = self._response.isclosed() and not self._response.will_close
            self._response.close()
            end(reusable=reusable)

    def read(self, limit: int, seconds: float) -> bytes:
        """Return the body, of a larger one the beginning; once more what was read. Raises ExchangeError."""
        if self._body is None:
            self._body = self._read(limit, seconds)
        return self._body

    def _read(self, limit: int, seconds: float) -> bytes:
        body, deadline = bytearray(), time.monotonic() + seconds
        self._response.timed.limit(seconds)
        with failing(ExchangeError):
            while len(body) < limit and (piece := self._response.read1(limit - len(body))):
                body += piece
                if time.monotonic() > deadline:
                    raise UnfinishedError(f"{seconds:g} s")
            if len(body) < limit:
                self._refuse_cut()
        return bytes(body)

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the body in pieces of at most `size` bytes. Raises ExchangeError, for a trickle too."""
        rate = LeastRate(urls.place(self.url))
        while True:
            begun = time.monotonic()
            self._response.timed.limit(self._seconds)
            with failing(ExchangeError):
                if not (piece := self._response.read1(size)):
                    self._refuse_cut()
                    return
                try:
                    rate.took(len(piece), time.monotonic() - begun)
                except TransientError as slow:
                    raise UnfinishedError(str(slow)) from None
            yield piece

    def _refuse_cut(self) -> None:
        """Raise ConnectionError where a body has ended before its time; `read1` and `readinto` do not."""
        if self._response.length:
            raise ConnectionAbortedError(f"{self._response.length} bytes before the end of an answer")
        self._response.close()  # `read1` does not notice that this was the end


def _headers(message: http.client.HTTPMessage) -> dict[str, str]:
    """Return headers by name in lower case; several of one name are one list (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in message.items():
        key, text = name.lower(), _FOLD.sub(" ", value)
        with contextlib.suppress(UnicodeError):  # http.client takes all for Latin-1
            text = text.encode("latin-1").decode()
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


@contextlib.contextmanager
def failing(kind: type[ExchangeError]) -> Iterator[None]:
    """Raise what sockets, TLS and http.client raise as one kind of error, with that as its cause."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no host's name, no HTTP
        raise kind(str(error)) from error
