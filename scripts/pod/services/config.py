"""Access: what the environment says of ssh, Jupyter and the login before ComfyUI.

Each of them is off until its variables are set. The door before ComfyUI is there without a login, too, but in
an image that takes jobs: nobody opens a page there unless a login is set.
"""

from __future__ import annotations

import binascii
import re
from pathlib import Path

from pod.errors import ARGUMENTS_REFUSED, PodError
from pod.util import serving
from pod.util.dataclass import dataclass
from pod.util.env import HIGHEST_PORT, SettingError, check_filled_in, port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# ComfyUI's own port behind the door is this far from the door's: 18188 for 8188, as vast.ai's images have it.
BEHIND = 10000
LOCAL_PORT = 8190  # where /ping is answered inside the pod

MAX_PASSWORD = 256  # bytes of a name or password; a header, which holds them, may not grow without end

# RFC 4253, 5656 and 8709, and PROTOCOL.u2f of OpenSSH: what its sshd takes as a key by default.
_KEY_TYPES = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)


_CORS = "--enable-cors-header"
# An origin as browsers write it (RFC 6454, 6.2): lower case, no default port. Extensions have other schemes.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_ORIGIN = (
    rf"(?P<scheme>[a-z][a-z0-9+.-]*)://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_DEFAULT_PORTS = (("http", "80"), ("https", "443"))


@dataclass(frozen=True)
class Ssh:
    """sshd and the keys that it accepts: lines of an authorized_keys file."""

    port: int
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Jupyter:
    """Jupyter's password and token; None where not set."""

    port: int
    token: str | None
    password: str | None


@dataclass(frozen=True)
class Login:
    """A login before ComfyUI."""

    user: str
    password: str


@dataclass(frozen=True)
class Access:
    """The ways in; None is a closed one. Warnings are sentences. `serve`: how jobs come, if any do."""

    ssh: Ssh | None = None
    jupyter: Jupyter | None = None
    login: Login | None = None
    exposed: str | None = None
    warnings: tuple[str, ...] = ()
    serve: str | None = None

    @property
    def door(self) -> bool:
        """Whether people can come to ComfyUI's page at all."""
        return self.serve is None or self.login is not None

    def to_json(self) -> dict[str, object]:
        """Return what may be written down: no secret."""
        return {
            "ssh": {"port": self.ssh.port, "keys": len(self.ssh.keys)} if self.ssh else None,
            "jupyter": {"port": self.jupyter.port} if self.jupyter else None,
            "login": {"user": self.login.user} if self.login else None,
        }

    def ports(self, port: int) -> dict[str, int]:
        """Return the ports that are listened on beside that of ComfyUI's page, `port`, by their names."""
        behind = "COMFYUI_PORT behind the login" if self.login else "COMFYUI_PORT behind the door"
        if not self.door:
            behind = "COMFYUI_PORT inside the pod"
        found = {behind: inner_port(port), "the port inside the pod that answers /ping": LOCAL_PORT}
        if self.serve == serving.DIFFUSERS:
            found = {}
        if self.ssh:
            found["SSH_PORT"] = self.ssh.port
        if self.jupyter:
            found["JUPYTER_PORT"] = self.jupyter.port
        return found

    def check_ports(self, port: int) -> None:
        """Raise SettingError where two of these, or one and that of ComfyUI's page, `port`, are the same."""
        taken: dict[int, str] = {}
        own = "PORT" if self.serve == serving.DIFFUSERS else "COMFYUI_PORT"
        for name, at in {own: port, **self.ports(port)}.items():
            if at in taken:
                raise SettingError(f"{name} and {taken[at]} are both {at}: give one of them another port.")
            taken[at] = name


def read(environ: Mapping[str, str]) -> Access:
    """Read the environment. Raises SettingError; a malformed key is only left out: platforms set those."""
    keys, warnings = _keys(environ)
    ssh = Ssh(port("SSH_PORT", environ.get("SSH_PORT"), 22), keys) if keys else None
    if not serving.has_comfyui(environ):
        _refuse_login(environ)
        return Access(ssh=ssh, warnings=warnings, serve=serving.way(environ))
    return Access(
        ssh=ssh,
        jupyter=_jupyter(environ),
        login=_login(environ),
        exposed=_exposed(environ),
        warnings=warnings,
        serve=serving.way(environ),
    )


def _refuse_login(environ: Mapping[str, str]) -> None:
    """Raise SettingError where a login is asked for in an image without a page to put it before."""
    for name in ("WEB_USER", "WEB_PASSWORD"):
        if environ.get(name, "").strip():
            raise SettingError(
                f"{name} asks for a login, which this image does not have: its clients show API_TOKEN. "
                "Set that, and leave WEB_USER and WEB_PASSWORD out."
            )


def inner_port(outer: int) -> int:
    """Return the port that ComfyUI listens on behind the door that listens on `outer`."""
    return outer + BEHIND if outer + BEHIND <= HIGHEST_PORT else outer - BEHIND


def read_cors(args: Sequence[str]) -> str | None:
    """Return the origin that ComfyUI's arguments let in, `*` for all, or None (--enable-cors-header)."""
    if not any(word.partition("=")[0] == _CORS for word in args):
        return None
    from pod.comfyui_http import value  # noqa: PLC0415 - its http.client costs 10 ms at a start

    return value(_CORS, list(args)) or "*"


def check_cors(cors: str | None, login: Login | None) -> None:
    """Raise PodError where `--enable-cors-header` names no origin, or lets in everybody past a login."""
    if cors == "*" and login:
        raise PodError(
            f"COMFYUI_ARGS: {_CORS} lets every page that a logged-in user opens use that login: name the "
            "one origin that may, such as https://app.example.com, or remove WEB_USER.",
            ARGUMENTS_REFUSED,
        )
    if cors in (None, "*"):
        return
    found = re.fullmatch(_ORIGIN, str(cors))
    if cors == "null":
        why = "is the origin of pages that have none, which anyone can make"
    elif found and (found["scheme"], found["port"]) in _DEFAULT_PORTS:
        why = f"is never sent by a browser, which omits :{found['port']}"
    elif not found or int(found["port"] or 1) > HIGHEST_PORT:
        why = "is not an origin"
    else:
        return
    raise PodError(
        f"COMFYUI_ARGS: {_CORS} {cors!r} {why}: give one such as https://app.example.com, in lower case and "
        "without a path.",
        ARGUMENTS_REFUSED,
    )


def check_tls(args: Sequence[str]) -> None:
    """Raise PodError where certificate and key of ComfyUI's arguments are not a pair for a server."""
    if not any(word.partition("=")[0] == "--tls-certfile" for word in args):
        return
    import ssl  # noqa: PLC0415 - costs 20 ms, and few use it

    from pod.comfyui_http import value  # noqa: PLC0415 - the same

    names = [value(flag, list(args)) for flag in ("--tls-certfile", "--tls-keyfile")]
    if not all(names):
        return
    certificate, key = (str(Path("/opt/ComfyUI", str(name))) for name in names)
    try:
        # A key with a passphrase would ask for it on a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        why = error.reason if isinstance(error, ssl.SSLError) else getattr(error, "strerror", None)
        said = str(why or "unreadable").replace("_", " ").lower()
        raise PodError(
            f"COMFYUI_ARGS: --tls-certfile {names[0]!r} and --tls-keyfile {names[1]!r} are not a pair that a "
            f"server can use ({said}): give a certificate and its own key, both as PEM, the key without a "
            "passphrase.",
            ARGUMENTS_REFUSED,
        ) from None


def _login(environ: Mapping[str, str]) -> Login | None:
    user, password = _given(environ, "WEB_USER"), _given(environ, "WEB_PASSWORD")
    if user is None and password is None:
        return None
    if user is None or password is None:
        has, lacks = ("WEB_USER", "WEB_PASSWORD") if user else ("WEB_PASSWORD", "WEB_USER")
        raise SettingError(f"{has} is set and {lacks} is not: a login needs both, set the other or neither.")
    if (
        ":" in user
        or user.lstrip().startswith("#")
        or not user.isprintable()
        or len(user.encode()) > MAX_PASSWORD
    ):
        raise SettingError(
            f"WEB_USER={user[:40]!r} cannot be a user's name: no colon or control character in it, no # "
            f"at its beginning, and {MAX_PASSWORD} bytes at most."
        )
    if not password.isprintable():
        raise SettingError("WEB_PASSWORD holds a control character, such as the end of a line: leave it out.")
    if len(password.encode()) > MAX_PASSWORD:
        raise SettingError(f"WEB_PASSWORD is longer than {MAX_PASSWORD} bytes: take a shorter one.")
    return Login(user, password)


def _jupyter(environ: Mapping[str, str]) -> Jupyter | None:
    token, password = _given(environ, "JUPYTER_TOKEN"), _given(environ, "JUPYTER_PASSWORD")
    for name, value in (("JUPYTER_TOKEN", token), ("JUPYTER_PASSWORD", password)):
        if value is not None and not value.isprintable():
            raise SettingError(f"{name} holds a control character, such as the end of a line: leave it out.")
    if token is None and password is None:
        return None
    # RunPod's link to Jupyter carries the password as a token.
    return Jupyter(port("JUPYTER_PORT", environ.get("JUPYTER_PORT"), 8888), token or password, password)


def _given(environ: Mapping[str, str], name: str) -> str | None:
    """Return a value as it is; blank is not set, so that no password can be blank. Raises SettingError."""
    value = environ.get(name, "")
    check_filled_in(name, value)
    return value if value.strip() else None


def _keys(environ: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of both variables, and a sentence for each line that is not a key."""
    keys: dict[str, None] = {}
    warnings: list[str] = []
    given = {"PUBLIC_KEY": environ.get("PUBLIC_KEY"), "SSH_PUBLIC_KEY": environ.get("SSH_PUBLIC_KEY")}
    for name, text in given.items():
        lines = [line.strip() for line in (text or "").splitlines()]
        if any("PRIVATE KEY-----" in line for line in lines):
            warnings.append(
                f"{name} holds a private key, so it is not used: make a new pair, and give its .pub file"
            )
            continue
        for number, line in enumerate(lines, start=1):
            if _is_key(line):
                keys[line] = None
            elif line and not line.startswith("#"):
                where = f"{name}, line {number}," if len(lines) > 1 else name
                warnings.append(
                    f"{where} is not an ssh public key, so it is ignored: give a line of a .pub file"
                )
    return tuple(keys), tuple(warnings)


def _is_key(line: str) -> bool:
    """Tell whether a line is `[options] type base64 [comment]`, whose base64 says the type too (RFC 4253)."""
    words = line.split()
    kind = next((number for number, word in enumerate(words) if word in _KEY_TYPES), None)
    if kind is None or len(words) < kind + 2 or not line.isprintable():
        return False
    try:
        blob = binascii.a2b_base64(words[kind + 1], strict_mode=True)
    except ValueError:  # binascii.Error is one
        return False
    fields = _fields(blob)
    return len(fields) > 1 and fields[0] == words[kind].encode()


def _fields(blob: bytes) -> list[bytes]:
    """Return the fields of a key, each with its length before it (RFC 4251, 5); none where it is cut off."""
    fields = []
    while blob:
        end = 4 + int.from_bytes(blob[:4], "big")
        if end > len(blob):
            return []
        fields.append(blob[4:end])
        blob = blob[end:]
    return fields


def _exposed(environ: Mapping[str, str]) -> str | None:
    """Return what opens ComfyUI's port to everybody, as far as the platform's variables tell."""
    if environ.get("RUNPOD_POD_ID") and not environ.get("RUNPOD_ENDPOINT_ID"):
        return "RunPod's proxy asks for no login"
    if environ.get("VAST_CONTAINERLABEL"):
        return "vast.ai maps the port to the open internet"
    return None
