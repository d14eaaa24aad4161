"""What stands in the way of a site, found before it joins and told in words: what is wrong, and what to mend.

Nothing is begun by it: no code is used up, no session is opened, and no file is left behind. jax starts in a process of
its own, while the network is asked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from learner_jax.errors import CryptoError, DataError, LearnerError, StudyError
from learner_jax.network import probe
from learner_jax.network.enrol import load_membership
from learner_jax.network.keys import load_or_make_keys, parse_join_code
from learner_jax.network.links import SiteLink
from learner_jax.network.tunnel import Proxy, Tunnel, host_and_port, through
from learner_jax.storage.lock import only_one

OK, MEND, UNCHECKED = "ok", "to mend", "could not be checked"
DIAL_S = 8.0
CLOCK_S = 120.0
"""A clock that differs by less is well: no machine decides by it, but logs of two places are laid side by side."""
ROOM = 200 * 10**6
"""Bytes that a site needs at least: keys, outbox, its state and compiled programs."""
TRIAL = 2**20
JAX_S = 120.0
_ASK_JAX = "import jax, json; print(json.dumps([[d.platform, d.device_kind] for d in jax.devices()]))"
_DRIVER = Path("/proc/driver/nvidia/version")


class Finding(NamedTuple):
    """One line: what was looked at, OK, MEND or UNCHECKED, and words for people."""

    name: str
    verdict: str
    words: str


def examine(
    folder: Path,
    code: str | None,
    proxy: Proxy | None,
    data: Path | None,
    fits: Callable[[Path], str] | None,
    variables: Mapping[str, str],
) -> Iterator[Finding]:
    """Looks at all that a site stands on.

    Args:
      folder: of its keys and state, as `learner join` is given it.
      code: a join code's text; not looked at where the folder has joined.
      proxy: the only way out, if there is one.
      data: its table.
      fits: a table -> remarks, or DataError; None where no study is named.
      variables: of the process that starts jax.

    Returns:
      Findings, as they come.
    """
    with _jax_apart(variables) as process:
        caller, found = _caller(folder, code)
        yield found
        yield from _line(caller, proxy, folder)
        yield disk(folder)
        yield table(data, fits)
        yield devices(process)


# ---- who it is, and its line -----------------------------------------------------------------------------------------


def _caller(folder: Path, code: str | None) -> tuple[probe.Caller | None, Finding]:
    """Whom the coordinator will see, by the folder or by the code."""
    try:
        member = load_membership(folder)
        if member is not None:
            if not (folder / "keys.json").exists():
                raise CryptoError(f"expected this site's keys in {folder / 'keys.json'}, which is gone: restore it, or "
                                  "ask for a new join code")  # fmt: skip
            caller = probe.as_member(member, load_or_make_keys(folder / "keys.json"))
            words = f"{folder} has joined study '{member.study}' as '{member.site}'; no join code is needed"
            return caller, Finding("membership", OK, words)
        if code is None:
            words = f"{folder} has not joined a study yet: give --join_file=FILE with the code that you were sent"
            return None, Finding("join code", UNCHECKED, words)
        parsed = parse_join_code(code)
    except CryptoError as error:
        return None, Finding("join code", MEND, str(error))
    return probe.by_code(parsed), Finding("join code", OK, f"for study '{parsed.study}' at {parsed.address}")


def _line(caller: probe.Caller | None, proxy: Proxy | None, folder: Path) -> Iterator[Finding]:
    """From the name to the clock; what comes after a fault could not be checked."""
    names = ["proxy" if proxy else "address", *([] if proxy else ["port"]), "key", "clock"]
    if caller is None:
        yield from (Finding(name, UNCHECKED, "that needs a join code") for name in names)
        return
    try:
        with through(proxy, caller.address) as via:
            for found in _steps(caller, via, folder):
                names.remove(found.name)
                yield found
    except LearnerError as error:
        wrong = names.pop(0)
        yield Finding(wrong, MEND, str(error))
        yield from (Finding(name, UNCHECKED, f"mend the {wrong} first") for name in names)


def _steps(caller: probe.Caller, via: Tunnel | None, folder: Path) -> Iterator[Finding]:
    """As long as all is well; raises what is not."""
    host, port = host_and_port(caller.address)
    if via is not None:
        probe.knock_through(via)
        yield Finding("proxy", OK, f"connects to port {port} of {host}")
    else:
        yield Finding("address", OK, f"{host} is {', '.join(probe.resolve(host))}")
        probe.knock(host, port, DIAL_S)
        yield Finding("port", OK, f"{port} is open")
    with SiteLink(caller.address, caller.server_public, caller.keys, via=via) as link:
        probe.shake_hands(caller, link, DIAL_S + (via.timeout_s if via is not None else 0.0))
        yield Finding("key", OK, "the coordinator has the key that we expect, and knows ours")
        yield _clock(caller, link, folder)


def _clock(caller: probe.Caller, link: SiteLink, folder: Path) -> Finding:
    if _runs(folder):
        return Finding("clock", UNCHECKED, "this site's worker runs, and the question would cut into its talk")
    ahead = probe.ahead_s(caller, link)
    if ahead is None:
        return Finding("clock", UNCHECKED, "the coordinator does not say what time it is")
    words = f"{_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
    if abs(ahead) < CLOCK_S:
        return Finding("clock", OK, words)
    return Finding("clock", MEND, f"{words}: set this machine's clock, best by NTP, or tell who runs the coordinator")


def _runs(folder: Path) -> bool:
    """Whether a worker of this folder runs now."""
    if not (folder / "lock").exists():
        return False
    try:
        with only_one(folder, "worker", wait_s=0.0):
            return False
    except StudyError:
        return True


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"


# ---- the machine -----------------------------------------------------------------------------------------------------


def disk(folder: Path) -> Finding:
    """Whether a folder, or the one that it would be made in, takes files, and how many."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        if not there.is_dir():
            raise NotADirectoryError(20, "it is no folder")
        left = shutil.disk_usage(there).free
        if left >= ROOM:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(TRIAL))
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        return Finding("disk", MEND, f"expected to write to {there}, got: {error.strerror}; name another by --workdir")
    if left < ROOM:
        words = f"expected {_size(ROOM)} free in {there}, got {_size(left)}: make room, or name another by --workdir"
        return Finding("disk", MEND, words)
    return Finding("disk", OK, f"{_size(left)} free in {there}")


def _size(count: float) -> str:
    return f"{count / 1e9:.0f} GB" if count >= 10e9 else f"{count / 1e6:.1f} MB".replace(".0 ", " ")


def table(path: Path | None, fits: Callable[[Path], str] | None) -> Finding:
    """Whether the table can be read, and fits what the study asks for."""
    if path is None:
        return Finding("data", UNCHECKED, "give --data=FILE, this site's table")
    try:
        if fits is not None:
            return Finding("data", OK, fits(path))
        shape = _shape(path)
    except DataError as error:
        return Finding("data", MEND, str(error))
    words = f"{path} can be read ({shape}); whether it fits, --config=STUDY would tell"
    return Finding("data", UNCHECKED, words)


def _shape(path: Path) -> str:
    from learner_jax.data.tables import files_of, read_table

    tables = [read_table(file) for file in files_of(path)]
    rows = sum(len(one) for one in tables)
    if hasattr(tables[0], "counts"):
        genes, proteins = (max(len(getattr(one, part)) for one in tables) for part in ("genes", "proteins"))
        return f"{rows} cells, {genes} genes, {proteins} proteins"
    return f"{rows} rows, {max(one.shape[1] for one in tables)} columns"


@contextlib.contextmanager
def _jax_apart(variables: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that starts jax and says what it finds."""
    process = subprocess.Popen(
        [sys.executable, "-c", _ASK_JAX],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **variables},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def devices(process: subprocess.Popen[str]) -> Finding:
    """What jax finds to compute on."""
    try:
        out, err = process.communicate(timeout=JAX_S)
    except subprocess.TimeoutExpired:
        return Finding("devices", UNCHECKED, f"jax did not start within {JAX_S:.0f} s")
    if process.returncode:
        said = err.strip().splitlines() or [f"it ended with {process.returncode}"]
        return Finding("devices", MEND, f"jax does not start here: {said[-1][:200]}; install learner-jax anew")
    found = [(str(platform), str(kind)) for platform, kind in json.loads(out.splitlines()[-1])]
    words = ", ".join(f"{found.count(one)} x {one[1]}" for one in sorted(set(found)))
    if _DRIVER.exists() and all(platform == "cpu" for platform, _ in found):
        words += "; a GPU is here that jax does not use (pip install 'learner-jax[cuda]')"
    return Finding("devices", OK, words)
