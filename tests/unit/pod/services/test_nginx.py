"""The login: what is written for nginx, and what is in nobody's sight."""

from __future__ import annotations

import base64
import os
import pwd
import re
from pathlib import Path
from typing import Any

import pytest

from pod.services import nginx
from pod.services.config import Login
from pod.services.nginx import Ports

PASSWORD = "canary $1 'x'"
ROOT = Path(__file__).parents[4] / "scripts"


def prepared(run: Path, who: Login | None = Login("me", PASSWORD), *args: str, **ports: Any) -> Path:  # noqa: B008 - frozen
    service = nginx.prepare(who, ROOT, run, Ports(8188, 18188, 8190, **ports), args)
    assert PASSWORD not in " ".join((*service.argv, *service.environ.values(), service.welcome))
    return run / "login"


def config(run: Path, *given: Any, **ports: Any) -> str:
    return (prepared(run, *given, **ports) / "nginx.conf").read_text()


@pytest.mark.parametrize("who", [Login("me", PASSWORD), None])
def test_nothing_is_left_to_fill_in(who: Login | None, tmp_path: Path) -> None:
    text = config(tmp_path, who)
    assert not re.search(r"@[a-z_]+@", text)
    assert "listen 0.0.0.0:8188 " in text
    assert "server 127.0.0.1:18188;" in text
    assert "proxy_pass http://127.0.0.1:8190;" in text


def test_a_value_that_looks_like_a_word_is_a_value() -> None:
    assert nginx.fill("@one@ @two@", {"one": "@two@", "two": "2"}) == "@two@ 2"


def test_the_password_is_for_nginx_alone(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    text = (folder / "nginx.conf").read_text()
    pair = base64.b64encode(f"me:{PASSWORD}".encode()).decode().replace("+", "[+]")
    assert f'"~^(?i:basic) +{pair}$" yes;' in text
    assert PASSWORD not in text
    assert (folder / "users").read_text() == ""
    assert (folder / "nginx.conf").stat().st_mode & 0o777 == 0o600


def test_every_start_has_a_session_of_its_own(tmp_path: Path) -> None:
    sessions = set()
    for name in ("one", "two"):
        found = re.findall(r"__Host-podkiln=([\w-]+)", config(tmp_path / name))
        assert len(found) == 2
        (session,) = set(found)
        sessions.add(session)
        assert len(session) == 43
    assert len(sessions) == 2


def test_it_listens_on_what_this_pod_has_of_what_was_asked(tmp_path: Path) -> None:
    text = config(tmp_path, None, addresses=("127.0.0.1", "::1", "203.0.113.9", "no.such.name.invalid"))
    assert re.findall(r"listen (\S+) ", text) == ["127.0.0.1:8188", "[::1]:8188"]


def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    """Its name may hold what nginx takes for its own."""
    for name in ("a $b;.crt", "a.key"):
        (tmp_path / name).write_bytes(f"{name} Zürich".encode("latin-1"))
    args = ("--tls-certfile", str(tmp_path / "a $b;.crt"), "--tls-keyfile", str(tmp_path / "a.key"))
    text = config(tmp_path, None, *args)
    assert "listen 0.0.0.0:8188 backlog=4096 ssl;" in text
    assert f"ssl_certificate {tmp_path}/login/tls.crt; ssl_certificate_key {tmp_path}/login/tls.key;" in text
    assert "proxy_pass https://comfyui;" in text
    assert (tmp_path / "login" / "tls.key").read_bytes() == b"a.key Z\xfcrich"
    assert (tmp_path / "login" / "tls.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("able", ["00000000a80425fb", "0000000000000000"])
def test_who_is_in_no_list_of_users_has_a_door_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: str
) -> None:
    """As with `docker run --user 1000:1000`."""

    def nobody(_: object) -> None:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(pwd, "getpwnam", nobody)
    status = tmp_path / "status"
    status.write_text(f"Name:\tpython3\nCapEff:\t{able}\n")
    monkeypatch.setattr(nginx, "_STATUS", status)
    assert not re.search("^ *user ", config(tmp_path), re.MULTILINE)


def test_pods_of_one_address_do_not_take_each_others_cookies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = set()
    for host in ("one", "two"):
        monkeypatch.setattr(
            os, "uname", lambda host=host: os.uname_result(("Linux", host, "6", "1", "x86_64"))
        )
        for start in ("a", "b"):
            text = config(tmp_path / host / start)
            (name,) = set(re.findall(r"(podkiln-[0-9a-f]{12})=", text))
            names.add(name)
    assert len(names) == 2, "and a pod's own is replaced at its next start"


def test_a_health_path_at_comfyuis_port_is_answered_there(tmp_path: Path) -> None:
    assert "location = /healthz { rewrite ^ /ping last; }" in config(tmp_path, None, health_path="/healthz")
    for path in ("/", "/ping"):
        assert "rewrite" not in config(tmp_path, None, health_path=path)


def test_a_pod_that_may_not_change_users_has_a_door_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(nginx, "_STATUS", status)
    for able, user in (("00000000a80425fb", "www-data"), ("0000000000000000", "root")):
        status.write_text(f"Name:\tpython3\nCapEff:\t{able}\n")
        assert (f"user {user};" in config(tmp_path, None)) == (os.geteuid() == 0)
