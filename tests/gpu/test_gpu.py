"""A real card keeps what podkiln promises. GPU_ARGS are the arguments of tests/gpu/run.py.

Each of these is shown to fail for its fault, on fake cards, in tests/unit/bench/test_gpu_checks.py.
"""

from __future__ import annotations

import os
import shlex

import pytest
from gpu_kit import check_run, checks, machine

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def pod() -> checks.Pod:
    options = check_run.parse(shlex.split(os.environ.get("GPU_ARGS", "")))
    if options.image:
        pytest.fail(
            "GPU_ARGS: these tests run on this machine; for an image there is tests/gpu/run.py --image."
        )
    if problems := [*machine.missing(options)]:
        pytest.fail("\n".join(problems))
    return check_run.prepare(options)


@pytest.mark.parametrize("name", checks.CHECKS)
def test_a_real_card(pod: checks.Pod, name: str) -> None:
    try:
        assert checks.CHECKS[name](pod)
    except checks.NotHereError as reason:
        pytest.xfail(str(reason))  # no skip: there is a card, and the check ran and said so
