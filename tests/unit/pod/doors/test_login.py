"""The login: what is written for nginx, and what is in nobody's sight."""

from __future__ import annotations

import pwd
import re
import subprocess
from pathlib import Path

from pod.doors import login
from pod.doors.access import Login
from pod.doors.login import Ports

PASSWORD = "canary $1 'x'"
ROOT = Path(__file__).parents[4] / "scripts"


def prepared(run: Path) -> Path:
    service = login.prepare(Login("me", PASSWORD), ROOT, run, Ports(8188, 18188, 8190))
    assert PASSWORD not in " ".join((*service.argv, *service.environ.values(), service.welcome))
    return run / "login"


def test_nothing_is_left_to_fill_in(tmp_path: Path) -> None:
    config = (prepared(tmp_path) / "nginx.conf").read_text()
    assert not re.search(r"@\w+@", config)
    assert "listen 8188;" in config
    assert "server 127.0.0.1:18188;" in config
    assert "proxy_pass http://127.0.0.1:8190;" in config
    assert config.count(str(tmp_path / "login")) == 7


def test_the_password_is_kept_as_a_hash_for_nginx_alone(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    users = folder / "users"
    name, _, hashed = users.read_text().strip().partition(":")
    salt = hashed.split("$")[2]
    argv = ["openssl", "passwd", "-6", "-salt", salt, "-stdin"]
    again = subprocess.run(argv, input=f"{PASSWORD}\n", capture_output=True, text=True, check=True)
    assert (name, hashed) == ("me", again.stdout.strip())
    assert users.stat().st_mode & 0o777 == 0o600
    assert (folder / "nginx.conf").stat().st_mode & 0o777 == 0o600
    if pwd.getpwuid(users.stat().st_uid).pw_name != "www-data":
        assert users.stat().st_uid == Path(folder).stat().st_uid != 0


def test_every_start_has_a_session_of_its_own(tmp_path: Path) -> None:
    sessions = set()
    for name in ("one", "two"):
        config = (prepared(tmp_path / name) / "nginx.conf").read_text()
        found = set(re.findall(r'podkiln=([\w-]+);|"([\w-]+)" (?:off|"");', config))
        (session,) = {word for words in found for word in words if word}
        sessions.add(session)
        assert len(session) == 43
    assert len(sessions) == 2


def test_only_what_is_behind_the_login_tells_the_session(tmp_path: Path) -> None:
    """What stands at the server is inherited, also by what answers without a login."""
    config = (prepared(tmp_path) / "nginx.conf").read_text()
    told = re.findall(r"(?m)^ *location ([^{\n]*) \{[^{}]*add_header Set-Cookie", config)
    assert told == ["/"]
    assert config.count("Set-Cookie") == 1
