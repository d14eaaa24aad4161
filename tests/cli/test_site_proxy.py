"""--proxy: where its password comes from, and where it is never seen."""

from __future__ import annotations

import getpass
import io
import sys
from pathlib import Path

import pytest

from learner_jax.cli import doors
from learner_jax.cli.main import main
from learner_jax.cli.proxy import proxy_of
from learner_jax.errors import ConfigError
from learner_jax.network.tunnel import Proxy

SECRET = "a very secret password"
URL = "http://nurse@proxy.example:3128"
KNOWN = Proxy("proxy.example", 3128, False, "nurse", SECRET)


def given(url: str | None = None, file: Path | str | None = None) -> Proxy | None:
    return proxy_of({"proxy": url, "proxy_password_file": None if file is None else str(file)})


def test_the_environment_names_no_proxy(monkeypatch):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://elsewhere.example:3128")
    assert given() is None


def test_a_password_comes_from_a_file_a_prompt_or_a_pipe(tmp_path, monkeypatch):
    (tmp_path / "password").write_text(f"{SECRET}\n")
    assert given(URL, tmp_path / "password") == KNOWN
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{SECRET}\n"))
    assert given(URL) == KNOWN
    asked = []
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(getpass, "getpass", lambda words: asked.append(words) or SECRET)
    assert given(URL) == KNOWN
    assert asked == ["Password of nurse at the proxy at proxy.example:3128 (not shown): "]
    assert given("http://proxy.example:3128") == KNOWN._replace(user="", password="")  # it asks for none


@pytest.mark.parametrize(
    ("url", "file", "words"),
    [
        (None, "password", "expected --proxy=http://USER@HOST:PORT beside it"),
        ("http://proxy.example:3128", "password", "expected a user name too"),
        (URL, "nowhere", "--proxy_password_file: no file"),
        (URL, "empty", "expected the proxy's password, got nothing"),
        (f"http://nurse:{SECRET.replace(' ', '')}@proxy.example:3128", None, "a password never stands on the command"),
    ],
)
def test_a_mistake_is_one_line(url, file, words, tmp_path):
    (tmp_path / "password").write_text(SECRET)
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match=words) as caught:
        given(url, None if file is None else tmp_path / file)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_learner_join_hands_it_on_and_says_it_to_nobody(tmp_path, monkeypatch, capsys):
    got: list[Proxy | None] = []

    def join(code, data, workdir, site, proxy, tell, release_histograms, profile):
        got.append(proxy)
        raise ConfigError(f"cannot connect to {proxy}")

    monkeypatch.setattr(doors, "join", join)
    monkeypatch.chdir(tmp_path)
    for name, text in (("code", "CODE"), ("password", SECRET), ("stays.csv", "a\n1\n")):
        (tmp_path / name).write_text(text)
    line = ["join", "--join_file=code", "--data=stays.csv", f"--proxy={URL}", "--proxy_password_file=password"]
    assert main(line) == 2 and got == [KNOWN]
    said = "".join(capsys.readouterr())
    assert said.endswith("learner join: cannot connect to the proxy at proxy.example:3128\n") and SECRET not in said
    written = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET in path.read_text()]
    assert written == [tmp_path / "password"]
