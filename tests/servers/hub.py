"""A local hub: enough of Hugging Face and CivitAI for the real clients, and everything that can go wrong.

Files in LFS answer with a redirect to a "CDN" on another port, as the real hub does; every request is
recorded with what it asked, what it was sent, and the Authorization it carried.

In a test:       with Hub() as hub: file = hub.add("org/repo", "a.safetensors", 1 << 20)
As a process:    python tests/servers/hub.py --bind 0.0.0.0 --host NAME --tree DIR
"""

from __future__ import annotations

import argparse
import json
import ssl
import sys
import threading
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers.hub_answers import Hit, Server
from servers.hub_content import Buffer, CivitaiVersion, HubFile, Repository, generate, make_file
from servers.hub_faults import Fault, Script


class Hub:
    """The hub and its CDN, each on a port of its own, until `close`; over TLS when given a context."""

    def __init__(
        self,
        bind: str = "127.0.0.1",
        port: int = 0,
        cdn_port: int = 0,
        host: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.repositories: dict[str, Repository] = {}
        self.versions: dict[int, CivitaiVersion] = {}
        self.files: dict[str, HubFile] = {}
        self.called: dict[str, str] = {}
        self.script = Script()
        self.hits: list[Hit] = []
        self.rate = 0
        self.closing = threading.Event()
        self._servers = [Server((bind, port), self, "hub"), Server((bind, cdn_port), self, "cdn")]
        start = f"{'https' if tls else 'http'}://{host or bind}"
        self.url, self.cdn_url = (f"{start}:{server.server_port}" for server in self._servers)
        for server in self._servers:
            if tls:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop serving; hanging answers end too."""
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(
        self, repo: str, path: str, content: Buffer | Path | int, *, seed: int = 0, lfs: bool = True
    ) -> HubFile:
        """Commit a file to a repository: given, or that many bytes made from a seed."""
        if isinstance(content, int):
            content = generate(content, seed, safetensors=path.endswith(".safetensors"))
        file = make_file(path, content, lfs=lfs)
        self.repositories.setdefault(repo, Repository(repo)).put(file)
        return file

    def add_civitai(self, number: int, name: str, content: Buffer | Path, **fields: Any) -> HubFile:
        """Offer a CivitAI version with one file; `fields` as in CivitaiVersion."""
        file = make_file(name, content)
        self.versions[number] = CivitaiVersion(number, file, **fields)
        return file

    def add_file(self, path: str, content: Buffer | Path, called: str | None = None) -> HubFile:
        """Offer a plain file at `{url}/files/{path}`; `called` so in its Content-Disposition."""
        self.files[path] = make_file(path, content, lfs=False)
        if called:
            self.called[path] = called
        return self.files[path]

    def gate(self, repo: str, token: str, error_code: str = "GatedRepo") -> None:
        """Let in only who brings this token."""
        self.repositories[repo].token = token
        self.repositories[repo].error_code = error_code

    def fault(self, *faults: Fault) -> None:
        """Add to what will go wrong."""
        self.script.faults.extend(faults)

    def downloads(self, name: str = "") -> list[Hit]:
        """The requests that were answered with bytes of a file (of that name)."""
        return [hit for hit in self.hits if hit.sent and hit.file and name in hit.file]

    def served(self, name: str = "") -> int:
        """Bytes of files sent so far."""
        return sum(hit.sent for hit in self.downloads(name))


def _stock(hub: Hub, options: argparse.Namespace) -> None:
    """Fill the hub from a folder and from `--generate`."""
    for file in sorted(Path(options.tree).rglob("*")) if options.tree else []:
        parts = file.relative_to(options.tree).parts
        if not file.is_file() or len(parts) < 2:
            continue
        if parts[0] == "civitai":
            hub.add_civitai(int(parts[1]), file.name, file)
        elif parts[0] == "files":
            hub.add_file("/".join(parts[1:]), file)
        else:
            hub.add("/".join(parts[:2]), "/".join(parts[2:]), file, lfs=file.suffix not in {".json", ".txt"})
    for row in options.generate:
        path, _, size = row.rpartition("=")
        org, repo, rest = path.split("/", 2)
        hub.add(f"{org}/{repo}", rest, int(size))
    for row in options.gate:
        repo, _, token = row.partition("=")
        hub.gate(repo, token)


def main() -> None:
    """Serve until killed; the first line of stdout is JSON with the two addresses and the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--host", default="", help="the name under which clients reach this machine")
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"), help="PEM files: serve https")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--cdn-port", type=int, default=0)
    parser.add_argument("--tree", help="ORG/REPO/PATH, civitai/VERSION/NAME and files/PATH below this folder")
    parser.add_argument("--generate", action="append", default=[], metavar="ORG/REPO/PATH=BYTES")
    parser.add_argument("--gate", action="append", default=[], metavar="ORG/REPO=TOKEN")
    parser.add_argument("--rate", type=int, default=0, help="bytes a second for each connection")
    parser.add_argument("--fault", action="append", default=[], metavar="JSON", help="fields of faults.Fault")
    options = parser.parse_args()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if options.tls else None
    if tls:
        tls.load_cert_chain(*options.tls)
    hub = Hub(options.bind, options.port, options.cdn_port, options.host, tls)
    _stock(hub, options)
    hub.rate = options.rate
    hub.fault(*(Fault(**json.loads(row)) for row in options.fault))
    files = {
        f"{name}/{file.path}": {"size": file.size, "sha256": file.sha256, "revision": repo.head}
        for name, repo in hub.repositories.items()
        for file in repo.commits[repo.head].values()
    }
    sys.stdout.write(json.dumps({"url": hub.url, "cdn_url": hub.cdn_url, "files": files}) + "\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main()
