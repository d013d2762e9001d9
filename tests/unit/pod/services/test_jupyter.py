"""JupyterLab: what it is started with, and that its secrets go through one file of root's alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pod.services import jupyter
from pod.services.config import Jupyter

ENVIRON = {"HF_TOKEN": "h", "WEB_PASSWORD": "canary", "JUPYTER_TOKEN": "canary", "JUPYTER_PASSWORD": "canary"}


@pytest.mark.parametrize("password", [None, "canary-p"])
def test_secrets_go_through_a_file(
    password: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Jupyter(9999, "canary-t", password)
    with pytest.raises(OSError, match="this image has no JupyterLab"):
        jupyter.prepare(asked, Path("/root"), tmp_path, Path("/workspace"), ENVIRON)
    monkeypatch.setattr(jupyter, "LAB", tmp_path)
    service = jupyter.prepare(asked, Path("/root"), tmp_path, Path("/workspace"), ENVIRON)
    file = tmp_path / "jupyter" / "secrets.json"
    assert json.loads(file.read_text()) == {
        "port": 9999,
        "folder": "/workspace",
        "token": "canary-t",
        "password": password,
    }
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert "canary" not in " ".join((*service.argv, *service.environ.values(), service.welcome))
    assert service.environ["HF_TOKEN"] == "h"
    assert service.environ["JUPYTER_RUNTIME_DIR"] == str(file.parent)
    assert service.port == 9999
    assert service.nice > 0
