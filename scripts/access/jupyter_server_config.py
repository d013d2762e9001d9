"""JupyterLab of a pod: in the workspace, on every address, which asks for its token or password."""

from __future__ import annotations

import json
import os
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir  # type: ignore[import-not-found]
from jupyter_server.auth import passwd  # type: ignore[import-not-found]
from jupyter_server.serverapp import ServerApp  # type: ignore[import-not-found]

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - traitlets puts it there

secrets = json.loads(Path(jupyter_runtime_dir(), "secrets.json").read_text(encoding="utf-8"))
c.IdentityProvider.token = secrets["token"]
if secrets["password"]:
    c.PasswordIdentityProvider.hashed_password = passwd(secrets["password"])
c.PasswordIdentityProvider.allow_password_change = False

c.Application.log_level = "WARN"
c.ServerApp.ip = "0.0.0.0"  # noqa: S104 - pods are reached from outside, or not at all
c.ServerApp.port = secrets["port"]
c.ServerApp.port_retries = 0
# A page for a browser on this machine; it holds the token, and everybody may read it.
ServerApp.write_browser_open_files = lambda _: None

c.ServerApp.allow_remote_access = True
c.ServerApp.allow_root = True
c.ServerApp.open_browser = False
c.ServerApp.quit_button = False
c.ServerApp.root_dir = secrets["folder"]
c.ServerApp.terminado_settings = {"shell_command": ["/bin/bash"]}
# RunPod's proxy is another origin than the one that Jupyter sees; no other is let in.
if pod := os.environ.get("RUNPOD_POD_ID"):
    c.ServerApp.allow_origin = f"https://{pod}-{secrets['port']}.proxy.runpod.net"

# A bin on a network volume only fills it.
c.FileContentsManager.delete_to_trash = False
c.MultiKernelManager.default_kernel_name = "comfyui"

# No news or update checks: an update is a new image.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
