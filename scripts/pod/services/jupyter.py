"""JupyterLab, from a Python environment of its own, which asks for its token or password."""

from __future__ import annotations

import json
from pathlib import Path

from pod.services.service import Service, private_folder, write_private
from pod.util.secret_variables import without_access

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pod.services.config import Jupyter

LAB = Path("/opt/jupyter/bin/jupyter-lab")


def prepare(jupyter: Jupyter, root: Path, run: Path, workspace: Path, environ: Mapping[str, str]) -> Service:
    """Write what Jupyter reads. Raises OSError, also where the image has no JupyterLab.

    Args:
        jupyter: Port, token and password.
        root: Where the image's configuration lies.
        run: Where files of this boot go.
        workspace: The folder that it shows.
        environ: The pod's environment, which notebooks and terminals see, without those secrets.
    """
    if not LAB.exists():
        raise OSError("this image has no JupyterLab (`runtime` of its variant)")
    folder = private_folder(run / "jupyter")
    told = {
        "port": jupyter.port,
        "folder": str(workspace),
        "token": jupyter.token,
        "password": jupyter.password,
    }
    write_private(folder / "secrets.json", json.dumps(told))
    own = {
        "HOME": "/root",
        "JUPYTER_PATH": f"{root}/access",  # the kernel with ComfyUI's packages
        "JUPYTER_RUNTIME_DIR": str(folder),  # it finds its secrets there, and writes them there too
    }
    return Service(
        name="Jupyter",
        argv=(str(LAB), f"--config={root}/access/jupyter_server_config.py"),
        environ={**without_access(environ), **own},
        port=jupyter.port,
        setting="JUPYTER_PORT",
        welcome=f"Jupyter starts on port {jupyter.port}, and asks for its token or password.",
        nice=10,  # ComfyUI starts at the same time
    )
