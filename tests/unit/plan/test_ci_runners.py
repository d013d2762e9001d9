"""Free CI runners: disk and time of a build with its push, against what each promises."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from plans import plan_of

from podkiln.config import cuda_releases
from podkiln.config.document import ROOT
from podkiln.plan import ci_runners
from podkiln.plan.ci_runners import Reclaimable, Runner, RunnerCheck
from podkiln.util.executor import JOBS

if TYPE_CHECKING:
    from podkiln.plan.plan import Plan

GB = 10**9
MEASURED = cuda_releases.load("13.0").measured
RUNNER = Runner(
    name="a runner",
    platform="linux/amd64",
    free_bytes=14 * GB,
    unused=Reclaimable(folders=("/a", "/b"), bytes=16 * GB),
    job_seconds=6 * 3600,
    source="tests",
)


def planned(name: str = "baked", **options: Any) -> Plan:
    return plan_of(name, no_weights=False, **options)


@pytest.mark.parametrize(
    ("disk", "seconds", "suffices", "says"),
    [
        (13 * GB, 1500, True, "13 GB of disk (14 GB are free), 25 min of at most 6 h"),
        (14 * GB, 6 * 3600, True, "14 GB of disk (14 GB are free), 6 h of at most 6 h"),
        (30 * GB, 60, True, "30 GB of disk (14 GB are free, 16 GB more after `sudo rm -rf /a /b`), 1 min of"),
        (30 * GB + 1, 60, False, "31 GB of disk (14 GB are free, 16 GB more after `sudo rm -rf /a /b`), 1 m"),
        (13 * GB, 9 * 3600, False, "13 GB of disk (14 GB are free), 9 h of at most 6 h"),
    ],
)
def test_a_build_is_judged_by_disk_and_time(disk: int, seconds: float, suffices: bool, says: str) -> None:
    verdict = RunnerCheck(RUNNER, disk, seconds)
    assert verdict.suffices == suffices
    assert str(verdict).startswith(f"a runner {'is enough' if suffices else 'is not enough'}: {says}")


def test_weights_take_no_disk_unless_they_are_spooled() -> None:
    assert ci_runners.disk(planned("lazy")) == ci_runners.disk(planned("baked")) == MEASURED.build_disk
    largest = sorted(each.size for each in planned().bundles)[-JOBS:]
    assert ci_runners.disk(planned(spool=True)) == MEASURED.build_disk + sum(largest)
    assert ci_runners.disk(planned("lazy", spool=True)) == MEASURED.build_disk


def test_layers_that_are_there_take_neither_disk_nor_time() -> None:
    found = planned(spool=True)
    known = {each.recipe: digest_of(number) for number, each in enumerate(found.bundles)}
    there = replace(found, known=known, there=dict.fromkeys(known.values(), "existing"))
    assert ci_runners.disk(there) == MEASURED.build_disk
    assert ci_runners.seconds(there) == ci_runners.seconds(planned("lazy"))


def digest_of(number: int) -> Any:
    return f"sha256:{number:064x}"


def test_what_is_fetched_is_sent_meanwhile() -> None:
    found = planned(rate=20_000_000)
    moved = MEASURED.compressed + found.upload_bytes
    assert found.fetch_bytes < found.upload_bytes, "a layer is larger than its files"
    assert ci_runners.seconds(found) == pytest.approx(MEASURED.build_seconds + moved / 20_000_000)


def test_scripts_see_the_verdict() -> None:
    data = RunnerCheck(RUNNER, 24 * GB, 1500.4).as_json()
    assert data == {
        "name": "a runner",
        "suffices": True,
        "disk_bytes": 24 * GB,
        "free_bytes": 14 * GB,
        "unused_bytes": 16 * GB,
        "delete": ["/a", "/b"],
        "seconds": 1500,
        "job_seconds": 21600,
        "source": "tests",
    }
    assert RunnerCheck(RUNNER, 14 * GB, 1).as_json()["delete"] is None


def test_every_shipped_variant_builds_on_a_free_runner() -> None:
    """The promise of docs/how-to/bake-weights.md: a hosted runner is enough, whatever is baked."""
    for name in ("lazy", "baked"):
        assert [each.suffices for each in ci_runners.check_runners(planned(name))] == [True]


def test_every_runner_names_its_source() -> None:
    assert ci_runners.load()
    assert all(len(each.source) > 20 for each in ci_runners.load())


def test_our_own_workflow_deletes_what_the_plan_counts_on() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/images.yml").read_text())
    ran = " ".join(step.get("run", "") for step in workflow["jobs"]["image"]["steps"])
    (github,) = [each for each in ci_runners.load() if "GitHub" in each.name]
    assert all(folder in ran for folder in github.unused.folders)
