"""Flags of a command: absl's, and `--config.a.b=value` which absl cannot declare beforehand.

A command's flags are declared on a FlagValues of its own, so that two commands may share a name and no library adds
flags to ours. What is wrong is one ConfigError in one line, with the near names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from learner_jax.errors import ConfigError
from learner_jax.specs import near


class Override(NamedTuple):
    """`--config.algorithm.local_lr=0.05`: path ("algorithm", "local_lr"), text "0.05" (None: no value followed)."""

    path: tuple[str, ...]
    text: str | None


class Parsed(NamedTuple):
    """An argument list, understood.

    Attributes:
      values: the command's own flags by name; None where not given and without default.
      config: what `--config` named, or None.
      overrides: of fields of the config, in the order given.
      words: arguments that are no flags.
    """

    values: dict[str, Any]
    config: str | None
    overrides: tuple[Override, ...]
    words: tuple[str, ...]


class Flag(NamedTuple):
    """One declared flag: kind is str, int, float, bool, or list (of text: may be given again); None is "not given"."""

    name: str
    kind: type
    help: str
    default: Any = None


def parse(argv: Sequence[str], declared: Sequence[Flag], config: bool = True) -> Parsed:
    """Understands the arguments after the command's name.

    Args:
      argv: such as `["--config", "readmission", "--config.rounds=100", "--json"]`.
      declared: the command's flags.
      config: whether the command takes `--config`.

    Raises:
      ConfigError: an unknown flag (near ones are named), or a value of the wrong kind.
    """
    named, overrides, rest = _split(argv) if config else (None, [], list(argv))
    known = [flag.name for flag in declared] + (["config"] if config else [])
    _refuse_unknown(rest, declared, known)
    from absl import flags as absl_flags  # 50 ms that --help does without

    values = absl_flags.FlagValues()
    define: dict[type, Callable[..., Any]] = {
        str: absl_flags.DEFINE_string,
        int: absl_flags.DEFINE_integer,
        float: absl_flags.DEFINE_float,
        bool: absl_flags.DEFINE_boolean,
        list: absl_flags.DEFINE_multi_string,
    }
    for flag in declared:
        define[flag.kind](flag.name, flag.default, flag.help, flag_values=values)
    try:
        words = values(["learner", *rest])[1:]
    except absl_flags.Error as error:
        raise ConfigError(_one_line(error, {flag.name: flag.kind for flag in declared})) from None
    return Parsed({flag.name: values[flag.name].value for flag in declared}, named, tuple(overrides), tuple(words))


def _split(argv: Sequence[str]) -> tuple[str | None, list[Override], list[str]]:
    """(what --config names, overrides, everything else)."""
    named, overrides, rest = None, [], []
    arguments = list(argv)
    while arguments:
        argument = arguments.pop(0)
        if argument == "--":
            rest += [argument, *arguments]
            break
        found = re.fullmatch(r"--?config((?:\.[^=.]*)*)(?:=(.*))?", argument, re.DOTALL)
        if not found:
            rest.append(argument)
            continue
        path, text = tuple(found[1].split(".")[1:]), found[2]
        if text is None and arguments and not re.match(r"-+[A-Za-z]", arguments[0]):
            text = arguments.pop(0)
        if path:
            overrides.append(Override(path, text))
        elif text:
            named = text
        else:
            raise ConfigError("--config: expected a file or the name of a shipped config, got nothing")
    return named, overrides, rest


def _refuse_unknown(rest: Sequence[str], declared: Sequence[Flag], known: Sequence[str]) -> None:
    """absl's own message spans lines and knows nothing of --config, so unknown flags are found here first."""
    plain = {"flagfile", "undefok", *(flag.name for flag in declared)}
    plain |= {f"no{flag.name}" for flag in declared if flag.kind is bool}
    takes_value = {flag.name for flag in declared if flag.kind is not bool} | {"flagfile", "undefok"}
    skip = False
    for argument in rest:
        if argument == "--":
            return
        found = None if skip else re.match(r"--?([A-Za-z][^=]*)", argument)
        skip = False
        if not found:
            continue
        name = found[1]
        if name not in plain:
            raise ConfigError(_unknown(name, known, declared))
        skip = name in takes_value and "=" not in argument


def _unknown(name: str, known: Sequence[str], declared: Sequence[Flag]) -> str:
    stem, dot, tail = name.partition(".")

    def show(word: str) -> str:  # --confg.rounds means --config.rounds
        return f"--config{dot}{tail}" if word == "config" else f"--{word}"

    guess = near(stem, [*known, *(f"no{flag.name}" for flag in declared if flag.kind is bool)], show)
    return f"--{name}: no such flag{guess or ' (--help lists them)'}"


def _one_line(error: Exception, kinds: dict[str, type]) -> str:
    text = " ".join(str(error).split())
    found = re.match(r"flag --(\w+)=(.*?): ", text)
    if found and found[1] in kinds:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", list: "text"}
        return f"--{found[1]}: expected {words[kinds[found[1]]]}, got {found[2]!r}"
    found = re.match(r"Missing value for flag -*(\w+)", text)
    return f"--{found[1]}: expected a value, got nothing" if found else text
