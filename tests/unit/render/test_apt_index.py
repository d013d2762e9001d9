"""What apt is given of the lock, and what is said of a base without one."""

from __future__ import annotations

import json
import lzma
from typing import TYPE_CHECKING

import apt_locks
import pytest
from plans import plan_of

from podkiln.plan import substitutes
from podkiln.render import apt_index, build_context, lint

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

MOUNT = "    --mount=type=bind,from=apt,target=/apt \\\n"
STAGE = "FROM scratch AS apt\nCOPY apt/ /\n"


@pytest.fixture(scope="module")
def locked() -> Plan:
    return apt_locks.with_apt(plan_of("lazy"))


def test_index_and_time_of_snapshots_are_files_of_the_context(locked: Plan) -> None:
    files = build_context.render(locked)
    own = {path: file.content for path, file in files.items() if path.startswith("apt/")}
    assert sorted(own) == [
        "apt/base.sha256",
        "apt/debian-security/Packages.xz",
        "apt/debian/Packages.xz",
        "apt/snapshot",
    ]
    assert own["apt/snapshot"].decode() == "20261128T000000Z\n"
    assert own["apt/base.sha256"].decode() == "0" * 64 + "  -\n"
    for archive, text in apt_locks.PACKAGES.items():
        assert lzma.decompress(own[f"apt/{archive}/Packages.xz"]).decode() == text


def test_the_dockerfile_takes_them_and_keeps_its_rules(locked: Plan) -> None:
    text = build_context.dockerfile(locked)
    assert text.count(STAGE) == text.count(MOUNT) == 1
    assert lint.check(build_context.render(locked)) == []


def test_without_a_lock_there_is_none_of_it(locked: Plan) -> None:
    bare = build_context.dockerfile(plan_of("lazy"))
    assert STAGE not in bare
    assert MOUNT not in bare
    assert apt_index.texts(None) == apt_index.packed(None) == {}
    runs = [
        [
            rest.split("sh /build/install-packages.sh")[1]
            for _, _, rest in lint.instructions(text)
            if "install-packages" in rest
        ]
        for text in (bare, build_context.dockerfile(locked))
    ]
    assert runs[0] == runs[1], "the history is the same, so verify compares it in both cases"


def test_plan_label_and_manifest_say_whether_apt_is_locked(locked: Plan) -> None:
    digest = apt_locks.make(locked.base_digest).digest
    for plan, told in ((locked, digest), (plan_of("lazy"), "not locked")):
        assert plan.as_json()["apt"] == told
        assert build_context.labels(plan)["io.podkiln.apt"] == told
        manifest = build_context.render(plan)["podkiln/manifest.json"].content
        assert json.loads(manifest)["apt"] == told
    (note,) = [each for each in plan_of("lazy").notes if "apt" in each]
    assert note == f"apt is not locked: the lock has no index for the base {locked.base_digest}."


def test_another_base_has_a_lock_of_its_own_or_none(locked: Plan) -> None:
    other = "sha256:" + "cd" * 32
    plan = plan_of("lazy", base=f"registry.example.com/debian@{other}")
    assert plan.base_digest == other
    assert plan.apt is None
    assert substitutes.base("debian:trixie-slim", locked.lock).actual not in locked.lock.apt
