"""What apt answers about packages that cannot be added above others: one sentence, at its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apt_locks
import pytest
from descriptions import variant, write

from podkiln.build import apt_conflicts, apt_resolver
from podkiln.config import variant as variants
from podkiln.errors import DescriptionError, SourceError

if TYPE_CHECKING:
    from pathlib import Path

    from podkiln.config.variant import LoadedVariant

COME = (
    "Inst git (1:2.47.3-0+deb13u1 Debian:13.8/stable [amd64])\nInst tree (2.2 Debian:13.8/stable [amd64])\n"
)
ANSWERS = {"unknown": "", "refused": "", "blamed": "", "simulated": COME}


@pytest.fixture
def described(tmp_path: Path) -> LoadedVariant:
    text = variant("runtime: {apt: {add: [git, tree]}}\n")
    return variants.load(str(write(tmp_path / "mine.yaml", text)))


def refusal(described: LoadedVariant, **answers: str) -> str:
    with pytest.raises((DescriptionError, SourceError)) as raised:
        apt_conflicts.require_none({**ANSWERS, **answers}, described)
    return str(raised.value)


def test_packages_that_only_come_are_no_conflict(described: LoadedVariant) -> None:
    apt_conflicts.require_none(ANSWERS, described)


def test_a_package_that_debian_has_not(described: LoadedVariant) -> None:
    assert "runtime.apt.add[1]: Debian trixie has no package 'tree'." in refusal(described, unknown="tree\n")


def test_a_package_that_changes_others_is_named_with_them(described: LoadedVariant) -> None:
    changes = "Remv python3 [3.13.5-1]\nInst libc6 [2.41-12] (2.41-13 Debian:13.8/stable [amd64]) []\n"
    alone = "".join(f"tree {line}\n" for line in changes.splitlines()) + "git Inst git (2 Debian [amd64])\n"
    said = refusal(described, simulated=COME + changes, blamed=alone)
    assert "runtime.apt.add[1]: tree would remove python3, replace libc6 2.41-12 by 2.41-13, and the" in said


def test_packages_that_only_together_change_others(described: LoadedVariant) -> None:
    said = refusal(
        described, simulated=f"{COME}Remv nginx [1.26.3-3]\n", blamed="git Inst git (2 Debian [amd64])\n"
    )
    assert "runtime.apt: git, tree would remove nginx, and the shared packages stay" in said


def test_a_package_that_another_one_has_brought(described: LoadedVariant) -> None:
    said = refusal(described, simulated=COME.partition("\n")[0])
    assert "runtime.apt.add[1]: tree is there already: another package of the image needs it." in said


def test_what_apt_refuses_is_told_in_its_own_words(described: LoadedVariant) -> None:
    unmet = "These have unmet dependencies:\n git : Depends: libgit (>= 9) but 8 is to be installed\n"
    said = refusal(described, refused=f"E: Unable to correct problems.\n{unmet}", simulated="")
    assert said == "apt cannot add git, tree: git : Depends: libgit (>= 9) but 8 is to be installed."


def test_locked_packages_count_as_installed() -> None:
    status = apt_resolver.installed(apt_locks.make("sha256:" + "ab" * 32))
    stanzas = status.split("\n\n")
    assert [each.splitlines()[:2] for each in stanzas] == [
        [f"Package: {name}", "Status: install ok installed"] for name in ("libedit2", "nginx", "tini")
    ]
