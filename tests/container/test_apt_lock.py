"""Debian packages by the apt lock: the real apt, in a base, with a lock taken from apt itself."""

from __future__ import annotations

import base64
import functools
import http.server
import os
import subprocess
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from containers import gateway

from podkiln.build import apt_resolver, apt_servers, buildkit, output_dir
from podkiln.config import variant
from podkiln.errors import IntegrityError
from podkiln.lock.apt import AptLock, Package
from podkiln.options import BuildRequest, NetworkOptions
from podkiln.pipeline import planning
from podkiln.plan import substitutes
from podkiln.render import build_context
from podkiln.render.bake_file import BuildSecrets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from podkiln.build.base_image import BaseLayout
    from podkiln.plan.plan import Plan

pytestmark = pytest.mark.engine
# Python, because the step that installs packages compiles its modules; and something else.
WANTED = ("python3", "tini")
TOLD = """
FROM system AS asked
RUN mkdir /told && cp /etc/apt/sources.list.d/debian.sources /told && ls /var/lib/apt/lists >/told/lists \\
    && dpkg-query --show --showformat='${Package} ${Version}\\n' >/told/packages
FROM scratch AS told
COPY --from=asked /told/ /
"""


@pytest.fixture(scope="module")
def plan(bootstrap_base: BaseLayout) -> Plan:
    """The lazy variant with few packages, on the base made from packages, with a lock taken now."""
    base = f"oci-layout://{bootstrap_base.path}@{bootstrap_base.digest}"
    found = apt_resolver.resolve(base, bootstrap_base.digest, WANTED, BuildSecrets(), None)
    made = planning.make_plan(variant.load("lazy"), BuildRequest.of(["lazy"]))
    spec = made.described.spec
    spec = spec.model_copy(update={"runtime": spec.runtime.model_copy(update={"apt": WANTED})})
    locked = AptLock(Path(), found.index, found.packages)
    return replace(
        made,
        described=replace(made.described, spec=spec),
        lock=replace(made.lock, apt={bootstrap_base.digest: locked}),
        inputs=(substitutes.layout_base(bootstrap_base.path, bootstrap_base.digest, made.lock),),
    )


def build(plan: Plan, folder: Path, mirror: str | None = None) -> tuple[int, str]:
    """Build the stage with the packages by plain buildx; what it holds is told in folder/told."""
    output_dir.write(build_context.render(plan), folder / "context")
    with (folder / "context" / "Dockerfile").open("a") as dockerfile:
        dockerfile.write(TOLD)
    secrets = BuildSecrets(NetworkOptions(apt_mirror=mirror), "trixie")
    argv = [
        "docker",
        "buildx",
        "build",
        "--progress=plain",
        "--no-cache-filter=system,asked",
        "--target=told",
    ]
    argv += [f"--build-context=base={plan.inputs[0].context}", f"--output={folder / 'told'}"]
    argv += [word for secret in secrets.secrets() for word in ("--secret", secret)]
    done = subprocess.run(
        [*argv, str(folder / "context")],
        env={**os.environ, **secrets.variables()},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def versions(told: Path) -> dict[str, str]:
    return dict(line.split(" ") for line in (told / "packages").read_text().splitlines())


def test_what_is_installed_is_what_is_locked_and_the_image_keeps_its_sources(
    plan: Plan, tmp_path: Path
) -> None:
    code, said = build(plan, tmp_path)
    assert code == 0, said[-3000:]
    assert plan.apt
    locked = {each.name: each.version for each in plan.apt.all.values()}
    assert set(WANTED) < set(locked)
    assert locked.items() <= versions(tmp_path / "told").items()
    assert "Signed-By: " in (tmp_path / "told/debian.sources").read_text()
    assert (tmp_path / "told/lists").read_text() == ""
    assert "/20" not in "".join(line for line in said.splitlines() if "Get:" in line), "no snapshot was asked"


def test_another_package_than_the_locked_one_stops_the_build_with_its_sentence(
    plan: Plan, tmp_path: Path
) -> None:
    assert plan.apt
    tini = plan.apt.all["tini"]
    sha256 = tini.values["SHA256"]
    other = Package({**tini.values, "SHA256": sha256[:-1] + ("0" if sha256[-1] != "0" else "1")})
    packages = {
        name: tuple(other if each == tini else each for each in group)
        for name, group in plan.apt.packages.items()
    }
    spoilt = replace(plan.apt, packages=packages)
    changed = replace(plan, lock=replace(plan.lock, apt={plan.base_digest: spoilt}))
    code, said = build(changed, tmp_path)
    assert code != 0
    error = buildkit.explain(code, said, [])
    assert isinstance(error, IntegrityError), error
    what = f"tini {tini.version}"
    assert str(error) == f"No mirror has the {what} that the apt lock names: what came has another sha256."
    assert "Setting up" not in said, "nothing was installed"


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder to who brings the login, and notes what it was asked for."""

    asked: list[str]
    login: str

    def do_GET(self) -> None:
        wanted = "Basic " + base64.b64encode(self.server.login.encode()).decode()  # type: ignore[attr-defined]
        if self.headers.get("Authorization") == wanted:
            super().do_GET()
        else:
            self.send_error(http.HTTPStatus.UNAUTHORIZED)

    def log_request(self, code: object = "-", size: object = "-") -> None:
        self.server.asked.append((self.path, int(code)))  # type: ignore[attr-defined, call-overload]


@pytest.fixture
def mirror(plan: Plan, canary: str, tmp_path: Path) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """A mirror with a login that has one package of them all, and what it was asked for."""
    assert plan.apt
    pool = plan.apt.all["tini"].values["Filename"]
    path = tmp_path / "mirror" / "debian" / pool
    path.parent.mkdir(parents=True)
    own, *_ = apt_servers.of("debian", plan.apt.index.snapshot_at, None)
    urllib.request.urlretrieve(f"{own}/{pool}", path)
    handler = functools.partial(Mirror, directory=str(tmp_path / "mirror"))
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), handler) as server:
        server.asked, server.login = [], f"me:{canary}"  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:{canary}@{gateway()}:{server.server_port}/debian", server.asked  # type: ignore[attr-defined]
        server.shutdown()


def test_what_one_mirror_lacks_the_next_one_serves_and_its_login_is_nowhere(
    plan: Plan, mirror: tuple[str, list[tuple[str, int]]], canary: str, tmp_path: Path
) -> None:
    url, asked = mirror
    code, said = build(plan, tmp_path, url)
    assert code == 0, said[-3000:]
    assert plan.apt
    codes = {path.rpartition("/")[2].partition("_")[0]: code for path, code in asked}
    assert codes.pop("tini") == 200
    assert set(codes.values()) == {404}
    assert len(codes) == len(plan.apt.all) - 1
    assert versions(tmp_path / "told")["python3"] == plan.apt.all["python3"].version
    assert canary not in said
    written = [*(tmp_path / "context").rglob("*"), *(tmp_path / "told").rglob("*")]
    assert [path for path in written if path.is_file() and canary.encode() in path.read_bytes()] == []
