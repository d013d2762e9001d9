"""A package index of one's own: https from a private CA, and a login in its address.

Format: the simple repository API (PEP 503).
"""

from __future__ import annotations

import base64
import contextlib
import re
import ssl
import subprocess
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_CA = """\
basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign
subjectKeyIdentifier=hash
"""
_SERVER = """\
basicConstraints=critical,CA:FALSE
subjectAltName=IP:{host}
authorityKeyIdentifier=keyid
"""
_PLATFORMS = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64")


def certificates(folder: Path, host: str) -> tuple[Path, Path]:
    """Make a CA, and a certificate and key of a server in one file; return both files."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    (folder / "ca.ext").write_text(_CA)
    (folder / "server.ext").write_text(_SERVER.format(host=host))

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name, subject in (("ca", "/CN=podkiln test CA"), ("server", f"/CN={host}")):
        openssl("req", "-new", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
    days = ["-days", "2"]
    openssl(
        "x509", "-req", "-in", "ca.csr", "-signkey", "ca.key", *days, "-extfile", "ca.ext", "-out", "ca.pem"
    )
    signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
    openssl(
        "x509", "-req", "-in", "server.csr", *signer, *days, "-extfile", "server.ext", "-out", "server.pem"
    )
    with (folder / "server.pem").open("a") as file:
        file.write((folder / "server.key").read_text())
    return folder / "ca.pem", folder / "server.pem"


def download(requirements: Sequence[Path], folder: Path, python: str = "3.13") -> None:
    """Fetch the locked wheels for the image's Python from where this machine has its packages."""
    platforms = [f"--platform={name}" for name in _PLATFORMS]
    files = [word for path in requirements for word in ("-r", str(path))]
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    argv += ["--only-binary=:all:", f"--python-version={python}", *platforms, "--dest", str(folder), *files]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def serve(wheels: Path, host: str, certificate: Path, login: str) -> Iterator[str]:
    """Serve a folder of wheels to who brings the login (user:password); yield the address with it."""
    wanted = "Basic " + base64.b64encode(login.encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(HTTPStatus.UNAUTHORIZED)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            kind, _, name = self.path.strip("/").partition("/")
            data = _page(wheels, name) if kind == "simple" else (wheels / name).read_bytes()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html" if kind == "simple" else "application/octet-stream")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"https://{login}@{host}:{server.server_port}/simple"
    finally:
        server.shutdown()
        server.server_close()


def _page(wheels: Path, project: str) -> bytes:
    files = [
        path.name
        for path in sorted(wheels.iterdir())
        if re.sub(r"[-_.]+", "-", path.name.split("-")[0]).lower() == project
    ]
    return "".join(f'<a href="/files/{quote(name)}">{name}</a>\n' for name in files).encode()
