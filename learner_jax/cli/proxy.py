"""--proxy and --proxy_password_file: the way out of a hospital. Loads no zmq.

HTTPS_PROXY and its like are not read: a variable that was set for a browser is no decision to send updates that way.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from learner_jax.errors import ConfigError
from learner_jax.network.tunnel import Proxy, parse_proxy


def proxy_of(values: Mapping[str, Any]) -> Proxy | None:
    """The proxy that the flags name, with its password; None where they name none.

    Args:
      values: by name, of all flags of a command.

    Raises:
      ConfigError: not a proxy, a password in the URL, a password without a user name.
    """
    url, file = values["proxy"], values["proxy_password_file"]
    if not url:
        if file:
            raise ConfigError("--proxy_password_file: expected --proxy=http://USER@HOST:PORT beside it, got none")
        return None
    proxy = parse_proxy(url)
    if not proxy.user:
        if file:
            raise ConfigError(
                "--proxy_password_file: expected a user name too, --proxy=http://USER@HOST:PORT, got none"
            )
        return proxy
    return proxy._replace(password=_password(file, proxy))


def _password(file: str | None, proxy: Proxy) -> str:
    if file:
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"--proxy_password_file: no file {file!r}")
        password = path.read_text(encoding="utf-8", errors="replace").strip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass(f"Password of {proxy.user} at {proxy} (not shown): ")
    else:
        password = sys.stdin.readline().strip("\r\n")
    if not password:
        raise ConfigError(f"expected the proxy's password, got nothing from {file or 'the prompt'}")
    return password
