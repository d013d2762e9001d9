"""Stands in for ComfyUI's main.py where only bytes matter: it counts what is uploaded, and keeps none of it.

POST anything: {"bytes": how many came, "authorization": what the caller sent as such}.
GET /slow: two pieces, the second one a second later.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/slow":
            self.answer({})
            return
        self.send_response(200)
        self.send_header("Content-Length", "10")
        self.end_headers()
        self.wfile.write(b"first")
        time.sleep(1)
        self.wfile.write(b"later")

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        count = 0
        while count < left and (piece := self.rfile.read(min(left - count, 1 << 20))):
            count += len(piece)
        self.answer({"bytes": count, "authorization": self.headers["Authorization"]})

    def answer(self, value: dict[str, object]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name for it
        """Keep quiet."""


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    try:
        ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)
