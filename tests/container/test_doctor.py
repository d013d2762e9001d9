"""What a pod says about the machine that it is on, with a fake nvidia-smi and real processes."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from containers import Container
from images import ROOT

if TYPE_CHECKING:
    from images import Image

pytestmark = pytest.mark.engine
SMI = {str(ROOT / "tests" / "fakes" / "nvidia-smi"): "/usr/bin/nvidia-smi:ro"}
PODKILN = ("/usr/bin/python3", "-I", "-S", "/opt/podkiln")


def findings(text: str) -> list[tuple[str, str]]:
    return [(finding["level"], finding["check"]) for finding in json.loads(text)["findings"]]


def test_a_machine_that_cannot_run_comfyui_ends_at_once_and_says_why(lazy: Image) -> None:
    env = {"MODELS": "none", "FAKE_GPU": "24", "FAKE_GPU_DRIVER": "535.183.01"}
    with Container(lazy.name, env=env, mounts=SMI) as pod:
        assert pod.wait_exit() == 69
        assert pod.logs().splitlines()[-1] == (
            "podkiln: ComfyUI cannot work here: the NVIDIA driver here is 535.183.01, and this image's CUDA "
            "needs 580.65.06 or newer: rent a machine with a newer driver, or take the image with cuda-12.8 "
            "in its tag (PODKILN_DOCTOR=warn starts it all the same)."
        )


def test_a_pod_is_examined_beside_comfyui_and_by_hand(lazy: Image) -> None:
    """Nothing is fetched, so nobody is asked; the hub cannot be reached from here anyway."""
    with Container(lazy.name, env={"MODELS": "none"}) as pod:
        pod.wait_ready()
        end = time.monotonic() + 20
        while pod.exec("test", "-f", "/run/podkiln/doctor.json", check=False).returncode:
            assert time.monotonic() < end
            time.sleep(0.2)
        assert findings(pod.read("/run/podkiln/doctor.json")) == []
        done = pod.exec(*PODKILN, "doctor")
        assert done.stderr.splitlines()[-1] == "podkiln: nothing is wrong."
        assert pod.exec(*PODKILN, "doctor", "--json").returncode == 0
        # With a card, its models, and a hub that nobody can find.
        asked = {"ENABLE_WAN21_T2V_14B": "true", "HF_ENDPOINT": "https://hub.invalid"}
        smi = "printf '#!/bin/sh\\necho \"$FAKE_CARD\"\\n' >/usr/bin/nvidia-smi; chmod +x /usr/bin/nvidia-smi"
        pod.exec("sh", "-c", smi)
        card = "0, GPU-1, NVIDIA GeForce GTX 1080 Ti, 11264, [N/A], 580.95.05, 6.1, 11000"
        done = pod.exec(*PODKILN, "doctor", "--json", env={**asked, "FAKE_CARD": card}, check=False)
        assert done.returncode == 1
        found = findings(done.stdout)
        assert found[0] == ("fatal", "card")
        assert {("warning", "memory"), ("warning", "dns")} <= set(found)
        told = pod.exec("/start.sh", "--explain", env={**asked, "FAKE_CARD": card}).stdout
        assert findings(told)[0] == ("fatal", "card")
        assert ("warning", "dns") not in findings(told), "explaining asks nobody"


def test_a_port_that_is_taken_is_named_with_who_has_it(lazy: Image) -> None:
    """As on platforms that start something of their own before us."""
    there = "import socket; socket.create_connection(('127.0.0.1', 8188))"
    script = (
        "/usr/bin/python3 -m http.server 8188 >/dev/null 2>&1 & "
        f'until /usr/bin/python3 -c "{there}" 2>/dev/null; do sleep 0.1; done; exec /start.sh'
    )
    options = ["--entrypoint", "bash"]
    with Container(lazy.name, "-c", script, env={"MODELS": "none"}, options=options) as pod:
        assert pod.wait_exit() == 69
        last = pod.logs().splitlines()[-1]
    assert "port 8188 is taken by python3 (process " in last
    assert "and ComfyUI is to listen there: set COMFYUI_PORT" in last
