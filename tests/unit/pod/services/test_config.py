"""Who may come in, as the environment says it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import browser_proxies
import pytest

from pod.errors import PodError
from pod.flags import choose as flags
from pod.flags import settings
from pod.flags.choose import Asked, Facts
from pod.hardware.gpu import Detection
from pod.hardware.memory import Memory
from pod.services import config
from pod.services.config import Access, Jupyter, Login
from pod.util import ports
from pod.util.dataclass import replace
from pod.util.env import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    from unit.pod.conftest import Choose

    from pod.flags.decision import Decision
    from pod.flags.rules import Rules

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIL8PX0kGlsBZTLZQ6FnEdjCq6ujrDiUqo4nDYXCNtoyz"
SK = (
    "sk-ssh-ed25519@openssh.com "
    "AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fAAAABHNzaDo="
)


def keys_of(**environ: str) -> tuple[str, ...]:
    ssh = config.read(environ).ssh
    return ssh.keys if ssh else ()


def test_nothing_is_open_by_itself() -> None:
    assert config.read({}) == Access()
    assert config.read({}).to_json() == {"ssh": None, "jupyter": None, "login": None}


@pytest.mark.parametrize("name", ["PUBLIC_KEY", "SSH_PUBLIC_KEY"])
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        (ED25519, (ED25519,)),
        (f"  {ED25519} me@home \n", (f"{ED25519} me@home",)),
        (f"{ED25519} a\n\n# mine\r\n{SK} b", (f"{ED25519} a", f"{SK} b")),
        (f"{ED25519}\n{ED25519}", (ED25519,)),
        (f'from="10.0.0.0/8",no-pty {ED25519}', (f'from="10.0.0.0/8",no-pty {ED25519}',)),
    ],
)
def test_keys(name: str, text: str, keys: tuple[str, ...]) -> None:
    assert keys_of(**{name: text}) == keys


def test_the_keys_of_both_variables_count() -> None:
    """RunPod writes PUBLIC_KEY itself, over whatever a user has put there."""
    assert keys_of(PUBLIC_KEY=ED25519, SSH_PUBLIC_KEY=f"{SK}\n{ED25519}") == (ED25519, SK)


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "ecdsa"])
def test_what_ssh_keygen_makes_is_a_key(kind: str, tmp_path: Path) -> None:
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / "id")]
    subprocess.run(argv, check=True)
    public = (tmp_path / "id.pub").read_text()
    assert keys_of(PUBLIC_KEY=public) == (public.strip(),)


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-ed25519 not/base64!",
        ED25519[:-4],
        ED25519[:-30],
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        ED25519.split()[1],
        "ssh-dss AAAAB3NzaC1kc3MAAACBAIO1",
        f"{ED25519}\x1b[2J",
        "{{ RUNPOD_SECRET_key }}",
    ],
)
def test_what_is_no_key_is_left_out_with_a_sentence(text: str) -> None:
    asked = config.read({"PUBLIC_KEY": text})
    assert asked.ssh is None
    assert asked.warnings == (
        "PUBLIC_KEY is not an ssh public key, so it is ignored: give a line of a .pub file",
    )


def test_one_bad_line_costs_no_good_one() -> None:
    asked = config.read({"SSH_PUBLIC_KEY": f"{ED25519}\noops"})
    assert asked.ssh
    assert asked.ssh.keys == (ED25519,)
    assert asked.warnings[0].startswith("SSH_PUBLIC_KEY, line 2, is not an ssh public key")


def test_a_private_key_is_not_used_and_not_shown() -> None:
    text = f"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n{ED25519}"
    asked = config.read({"PUBLIC_KEY": text})
    assert asked.ssh is None
    (warning,) = asked.warnings
    assert warning.startswith("PUBLIC_KEY holds a private key, so it is not used")
    assert "c2Vj" not in warning


@pytest.mark.parametrize(
    ("environ", "jupyter"),
    [
        ({"JUPYTER_PASSWORD": "p"}, Jupyter(8888, "p", "p")),
        ({"JUPYTER_TOKEN": "t"}, Jupyter(8888, "t", None)),
        ({"JUPYTER_TOKEN": "t", "JUPYTER_PASSWORD": "p"}, Jupyter(8888, "t", "p")),
        ({"JUPYTER_TOKEN": "t", "JUPYTER_PORT": "9"}, Jupyter(9, "t", None)),
        ({"JUPYTER_TOKEN": "", "JUPYTER_PASSWORD": "  "}, None),
        ({"JUPYTER_PORT": "9"}, None),
    ],
)
def test_jupyter(environ: dict[str, str], jupyter: Jupyter | None) -> None:
    assert config.read(environ).jupyter == jupyter


def test_a_login() -> None:
    asked = config.read({"WEB_USER": "me", "WEB_PASSWORD": " it's: a/secret "})
    assert asked.login == Login("me", " it's: a/secret ")
    assert asked.to_json()["login"] == {"user": "me"}
    assert config.read({"WEB_USER": "", "WEB_PASSWORD": " "}).login is None


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"WEB_USER": "me"}, "WEB_USER is set and WEB_PASSWORD is not: a login needs both"),
        ({"WEB_USER": "me", "WEB_PASSWORD": "  "}, "WEB_USER is set and WEB_PASSWORD is not"),
        ({"WEB_PASSWORD": "canary"}, "WEB_PASSWORD is set and WEB_USER is not: a login needs both"),
        ({"WEB_USER": "a:b", "WEB_PASSWORD": "canary"}, "WEB_USER='a:b' cannot be a user's name"),
        ({"WEB_USER": "#me", "WEB_PASSWORD": "canary"}, "WEB_USER='#me' cannot be a user's name"),
        ({"WEB_USER": "é" * 129, "WEB_PASSWORD": "canary"}, "256 bytes at most"),
        ({"WEB_USER": "a\nb", "WEB_PASSWORD": "canary"}, "WEB_USER='a\\\\nb' cannot be a user's name"),
        ({"WEB_USER": "a", "WEB_PASSWORD": "canary\n"}, "WEB_PASSWORD holds a control character"),
        ({"WEB_USER": "a", "WEB_PASSWORD": "é" * 129}, "WEB_PASSWORD is longer than 256 bytes"),
        ({"JUPYTER_TOKEN": "canary\n"}, "JUPYTER_TOKEN holds a control character"),
        ({"JUPYTER_PASSWORD": "canary\x00"}, "JUPYTER_PASSWORD holds a control character"),
        ({"JUPYTER_PASSWORD": "canary", "JUPYTER_PORT": "x"}, "JUPYTER_PORT='x' is not a valid port"),
        ({"PUBLIC_KEY": ED25519, "SSH_PORT": "0"}, "SSH_PORT='0' is not a valid port"),
    ],
)
def test_nonsense_is_refused_and_no_secret_is_shown(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingError, match=says) as raised:
        config.read(environ)
    assert raised.value.exit_code == 78
    assert "canary" not in str(raised.value)


UNFILLED = [
    "{{ RUNPOD_SECRET_pw }}",
    "{{RUNPOD_SECRET_pw}}",
    "${PW}",
    "$PW",
    "$(PW)",
    "'{{ RUNPOD_SECRET_pw }}'",
]


@pytest.mark.parametrize("name", ["WEB_USER", "WEB_PASSWORD", "JUPYTER_PASSWORD", "JUPYTER_TOKEN"])
@pytest.mark.parametrize("value", [*UNFILLED, "x-{{ RUNPOD_SECRET_pw }}"])
def test_a_secret_that_was_not_filled_in_is_no_password(name: str, value: str) -> None:
    """Or everybody who knows the platform would know it."""
    environ = {"WEB_USER": "me", "WEB_PASSWORD": "x"} if name.startswith("WEB") else {}
    with pytest.raises(
        SettingError, match=f"^{name} is the name of a secret that was not filled in"
    ) as raised:
        config.read({**environ, name: value})
    assert raised.value.exit_code == 78


@pytest.mark.parametrize("password", ["$ecret", "{{", "a$PW", "100$", "{x}", "$pw"])
def test_a_password_may_look_a_little_like_a_placeholder(password: str) -> None:
    assert config.read({"WEB_USER": "me", "WEB_PASSWORD": password}).login == Login("me", password)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    browser_proxies.certificate(tmp_path)
    return tmp_path


def tls(certificate: Path, key: Path) -> None:
    config.check_tls(["--listen", "--tls-certfile", str(certificate), "--tls-keyfile", str(key)])


def test_a_certificate_may_hold_a_comment_in_any_letters(pair: Path) -> None:
    certificate = pair / "front.crt"
    certificate.write_bytes("# Zürich\n".encode("latin-1") + certificate.read_bytes())
    tls(certificate, pair / "front.pem")
    config.check_tls(["--port", "1"])


def test_a_certificate_and_a_key_that_are_no_pair_are_said(pair: Path) -> None:
    encrypted, other = pair / "encrypted.pem", pair / "other"
    argv = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", str(pair / "front.pem")]
    subprocess.run([*argv, "-out", str(encrypted)], check=True, capture_output=True)
    other.mkdir()
    browser_proxies.certificate(other)
    (pair / "empty").write_text("")
    wrong = [
        (pair / "front.pem", pair / "front.crt"),
        (pair / "front.crt", encrypted),
        (pair / "front.crt", other / "front.pem"),
        (pair / "empty", pair / "front.pem"),
        (pair / "front.crt", pair / "none"),
    ]
    for certificate, key in wrong:
        with pytest.raises(PodError, match="are not a pair that a server can use") as raised:
            tls(certificate, key)
        assert raised.value.exit_code == 64


# --- what it means for ComfyUI

LOGIN = {"WEB_USER": "me", "WEB_PASSWORD": "x"}


def behind(decision: Decision) -> tuple[str, str]:
    """Return the address and the port that ComfyUI itself is told."""
    words = decision.args
    assert (words.count("--listen"), words.count("--port")) == (1, 1)
    return words[words.index("--listen") + 1], words[words.index("--port") + 1]


@pytest.mark.parametrize(
    ("asked", "port", "inner"),
    [
        ({}, 8188, 18188),
        ({"COMFYUI_PORT": "60000"}, 60000, 50000),
        ({"COMFYUI_ARGS": "--port 80"}, 80, 10080),
    ],
)
def test_behind_the_door_comfyui_is_not_reached_from_outside(
    asked: dict[str, str], port: int, inner: int, choose: Choose
) -> None:
    """ComfyUI-Manager does all it is told where ComfyUI listens on 127.*, so that needs a login."""
    for login, host in ((LOGIN, "127.0.0.1"), ({}, "localhost")):
        decision = choose(environ={**login, **asked})
        assert behind(decision) == (host, str(inner))
        assert decision.port == port
        assert decision.listen == ("0.0.0.0",)
    decision = choose(environ={**LOGIN, **asked})
    assert any(f"it listens on port {port}" in reason for reason in decision.reasons)


def test_arguments_do_not_get_around_the_login(choose: Choose) -> None:
    decision = choose(WEB_USER="me", WEB_PASSWORD="x", COMFYUI_ARGS="--listen 0.0.0.0,:: --port 9000")
    assert behind(decision) == ("127.0.0.1", "19000")
    assert (decision.port, decision.listen) == (9000, ("0.0.0.0", "::"))


@pytest.mark.parametrize(
    ("args", "listen", "host"),
    [
        ("--listen", ("0.0.0.0", "::"), "localhost"),
        ("--listen ::", ("::",), "localhost"),
        ("--listen 10.0.0.5,::1", ("10.0.0.5", "::1"), "localhost"),
        ("--listen 127.0.0.1,::1", ("127.0.0.1", "::1"), "127.0.0.1"),
    ],
)
def test_the_door_listens_where_comfyui_was_to(
    args: str, listen: tuple[str, ...], host: str, choose: Choose
) -> None:
    decision = choose(COMFYUI_ARGS=args)
    assert decision.listen == listen
    assert behind(decision) == (host, "18188")


@pytest.mark.parametrize(
    ("environ", "code", "says"),
    [
        ({**LOGIN, "COMFYUI_ARGS": "--enable-cors-header"}, 64, "--enable-cors-header lets every page"),
        (
            {**LOGIN, "COMFYUI_ARGS": "--enable-cors-header '*'"},
            64,
            "--enable-cors-header lets every page",
        ),
        ({"COMFYUI_ARGS": "--enable-cors-header a.test"}, 64, "'a.test' is not an origin"),
        ({"COMFYUI_ARGS": "--enable-cors-header 'http://a;}'"}, 64, "is not an origin"),
        ({"COMFYUI_ARGS": "--enable-cors-header https://a.test/"}, 64, "is not an origin"),
        *(
            ({**LOGIN, "COMFYUI_ARGS": f"--enable-cors-header {origin}"}, 64, says)
            for origin, says in (
                ("null", "'null' is the origin of pages that have none"),
                ("a://.", "is not an origin"),
                ("https://-a.test", "is not an origin"),
                ("https://a..test", "is not an origin"),
                ("https://App.test", "is not an origin"),
                ("https://a.test:0", "is not an origin"),
                ("https://a.test:70000", "is not an origin"),
                ("https://app.example.com:443", "is never sent by a browser, which omits :443"),
                ("http://app.example.com:80", "is never sent by a browser, which omits :80"),
            )
        ),
        *(
            ({**LOGIN, "COMFYUI_ARGS": f"--enable-cors-header {origin}"}, 0, "")
            for origin in (
                "http://localhost:443",
                "http://[::1]:8000",
                "chrome-extension://abcdef",
                "http://10.0.0.5",
            )
        ),
        ({"COMFYUI_ARGS": "--enable-cors-header"}, 0, ""),
        ({**LOGIN, "COMFYUI_ARGS": "--enable-cors-header https://a.test:8443"}, 0, ""),
    ],
)
def test_what_lets_other_origins_in_names_them(
    environ: dict[str, str], code: int, says: str, choose: Choose
) -> None:
    if not code:
        choose(environ=environ)
        return
    with pytest.raises(PodError, match=says) as raised:
        choose(environ=environ)
    assert raised.value.exit_code == code


@pytest.mark.parametrize(
    ("args", "cors"),
    [
        ((), None),
        (("--enable-cors-header", "--cpu"), "*"),
        (("--enable-cors-header", "https://a.test"), "https://a.test"),
        (("--enable-cors-header=https://a.test",), "https://a.test"),
    ],
)
def test_which_origin_is_let_in(args: tuple[str, ...], cors: str | None) -> None:
    assert config.read_cors(args) == cors


RUNPOD = {"RUNPOD_POD_ID": "abc"}
VAST = {"VAST_CONTAINERLABEL": "C.1"}


@pytest.mark.parametrize(
    ("environ", "warned"),
    [
        (RUNPOD, "ComfyUI on port 8188 is open to everybody, for RunPod's proxy asks for no login"),
        (VAST, "ComfyUI on port 8188 is open to everybody, for vast.ai maps the port"),
        ({}, None),
        ({**RUNPOD, "RUNPOD_ENDPOINT_ID": "e"}, None),
        ({**RUNPOD, "WEB_USER": "me", "WEB_PASSWORD": "x"}, None),
        ({**RUNPOD, "COMFYUI_ARGS": "--listen 127.0.0.1"}, None),
        ({**RUNPOD, "COMFYUI_ARGS": "--listen"}, "ComfyUI on port 8188 is open to everybody"),
    ],
)
def test_an_open_comfyui_is_warned_about(environ: dict[str, str], warned: str | None, choose: Choose) -> None:
    warnings = choose(environ=environ).warnings
    assert [warning for warning in warnings if "open to everybody" in warning] == [
        warning for warning in warnings if warned and warning.startswith(warned)
    ]
    assert bool(warned) == bool(warnings)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"PUBLIC_KEY": ED25519, "SSH_PORT": "8188"}, "SSH_PORT and COMFYUI_PORT are both 8188"),
        ({"JUPYTER_TOKEN": "t", "COMFYUI_PORT": "8888"}, "JUPYTER_PORT and COMFYUI_PORT are both 8888"),
        (
            {"JUPYTER_TOKEN": "t", "JUPYTER_PORT": "18188", "WEB_USER": "me", "WEB_PASSWORD": "x"},
            "JUPYTER_PORT and COMFYUI_PORT behind the login are both 18188",
        ),
        (
            {"JUPYTER_TOKEN": "t", "JUPYTER_PORT": "18188"},
            "JUPYTER_PORT and COMFYUI_PORT behind the door are",
        ),
        (
            {"COMFYUI_PORT": "8190"},
            "the port inside the pod that answers /ping and COMFYUI_PORT are both 8190",
        ),
        ({"COMFYUI_ARGS": "--port 8190"}, "answers /ping and COMFYUI_PORT are both 8190"),
        (
            {"PUBLIC_KEY": ED25519, "SSH_PORT": "8190"},
            "SSH_PORT and the port inside the pod that answers /ping",
        ),
        (
            {"JUPYTER_TOKEN": "t", "JUPYTER_PORT": "22", "PUBLIC_KEY": ED25519},
            "JUPYTER_PORT and SSH_PORT are both 22",
        ),
        ({"JUPYTER_PORT": "8188", "SSH_PORT": "8188"}, None),
    ],
)
def test_two_doors_on_one_port_are_refused(environ: dict[str, str], says: str | None, choose: Choose) -> None:
    """The first would take it from ComfyUI, and neither would say why."""
    if says is None:
        choose(environ=environ)
        return
    with pytest.raises(SettingError, match=says) as raised:
        choose(environ=environ)
    assert raised.value.exit_code == 78


def test_where_jobs_come_comfyui_is_reached_from_inside_alone(choose: Choose) -> None:
    decision = choose(PODKILN_SERVE="runpod", RUNPOD_POD_ID="worker-1")
    assert decision.listen == ()
    assert decision.args[:4] == ("--listen", "127.0.0.1", "--port", "18188")
    assert not any("open to everybody" in warning for warning in decision.warnings)
    assert ports.examine(decision.args, decision.access.to_json(), decision.port, decision.listen) == []


@pytest.mark.parametrize(
    ("environ", "left_out"),
    [({}, True), ({"PODKILN_SERVE": "runpod"}, False), ({"PODKILN_SERVE": "http"}, False)],
)
def test_where_jobs_come_nodes_that_take_their_key_are_loaded(
    known: Rules, environ: dict[str, str], left_out: bool
) -> None:
    known = replace(known, common=(*known.common, "--disable-api-nodes"))

    def chosen(arguments: str) -> Decision:
        asked = Asked(settings.read(environ, known), known.catalogue.parse_text(arguments, "COMFYUI_ARGS"))
        return flags.choose(known, Facts(Detection(None), Memory(65536, None), config.read(environ)), asked)

    decision = chosen("")
    assert ("--disable-api-nodes" in decision.args) is left_out
    assert any("they may bring a key" in each for each in decision.reasons) != left_out
    assert "--disable-api-nodes" in chosen("--disable-api-nodes").args


def test_a_login_opens_the_page_of_an_image_that_takes_jobs(choose: Choose) -> None:
    decision = choose(PODKILN_SERVE="runpod", WEB_USER="me", WEB_PASSWORD="x")
    assert decision.listen == ("0.0.0.0",)
    assert decision.to_json()["serve"] == "runpod"
