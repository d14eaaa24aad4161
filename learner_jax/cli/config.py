"""From `--config` and its overrides to a checked Study.

`specs.read` runs the file. The overrides are applied in an order of their own, so that the order on the command
line does not matter: whole things first (`--config.algorithm=scaffold`), then their fields. A new method brings its
own fields; those that the file had set for the old one go, those of the command line stay.

`engine` and `precision` come before all else: jax reads its settings when it starts, and to resolve a method's name
starts jax.
"""

from __future__ import annotations

import ast
import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from learner_jax import specs
from learner_jax.cli.flags import Override
from learner_jax.errors import ConfigError
from learner_jax.specs import Fields, Kind, Spec, Study


def load(
    named: str | None, overrides: Sequence[Override] = (), before_jax: Callable[[Study], None] = lambda study: None
) -> Study:
    """The checked Study that the command line means.

    Args:
      named: a path, or the name of a shipped config.
      overrides: as typed.
      before_jax: called with the study whose `engine` and `precision` are final, before any name is resolved.

    Raises:
      ConfigError: one line with all that is wrong.
    """
    if not named:
        raise ConfigError(
            f"--config is missing: expected a file or a name (shipped configs: {', '.join(specs.shipped())})"
        )
    study = specs.read(named)
    early = [one for one in overrides if one.path[0] in ("engine", "precision")]
    problems: list[str] = []
    study = override(study, early, problems)
    if not problems:
        before_jax(study)
    study = override(study, [one for one in overrides if one not in early], problems)
    study, more = specs.mistakes(study)
    more += [one for one in _rates_twice(study, overrides) if one not in more]
    # A field that could not be set is still at its old value: whatever is wrong with that is the file's.
    problems += [problem for problem in more if problem not in problems]
    if problems:
        raise ConfigError("; ".join(problems))
    return study


# ---- overrides -------------------------------------------------------------------------------------------------------


def override(study: Study, overrides: Sequence[Override], problems: list[str]) -> Study:
    """The study with fields set anew, whole things before their parts; what is wrong is appended to `problems`."""
    for path, text in sorted(overrides, key=lambda one: len(one.path)):
        try:
            study = _set(study, Study, path, text, "")
        except ConfigError as error:
            problems.append(str(error))
    return study


def _rates_twice(study: Study, overrides: Sequence[Override]) -> list[str]:
    """Rates that were typed in vain: what was typed was meant, be it the default."""
    found = []
    for head, *rest in (one.path for one in overrides):
        method = getattr(study, head, None)
        if len(rest) == 1 and isinstance(method, Spec) and rest[0] in method.fields:
            found += specs.twice(method, rest[0], head)
    return found


def _set(value: Any, hint: Any, path: tuple[str, ...], text: str | None, where: str) -> Any:
    """`value` with the field at `path` replaced; `where` is the path so far, for messages."""
    if not path:
        return _parse(value, hint, text, where)
    head, *rest = path
    here = f"{where}.{head}" if where else head
    kind = _kind(hint)
    if isinstance(value, str) and kind:
        value = Spec(kind, value)
    if isinstance(value, Spec):
        try:
            fields = specs.schema(value.kind, value.name)
        except ConfigError:
            return value  # no such name, which the check tells once
        if head not in fields:
            raise ConfigError(f"{here}: {specs.no_field(value.name, head, fields)}")
        default = None if fields[head].required else fields[head].default
        old = value.fields.get(head, default)
        return value.but(**{head: _set(specs.freeze(old), fields[head].hint, tuple(rest), text, here)})
    if dataclasses.is_dataclass(value):
        hints = typing.get_type_hints(type(value), include_extras=True)
        if head not in hints:
            raise ConfigError(f"{here}: {specs.no_field(where or 'a study', head, hints)}")
        new = _set(getattr(value, head), hints[head], tuple(rest), text, here)
        return dataclasses.replace(typing.cast(Any, value), **{head: new})
    if isinstance(value, tuple) and head.isdecimal() and int(head) < len(value):
        new = _set(value[int(head)], _element(hint, int(head)), tuple(rest), text, here)
        return (*value[: int(head)], new, *value[int(head) + 1 :])
    if isinstance(value, Fields):
        return Fields({**value, head: _set(value.get(head), Any, tuple(rest), text, here)})
    if kind:
        raise ConfigError(f"{here}: {where} is {value!r}; name one first: --config.{where}=NAME")
    raise ConfigError(f"{here}: expected a field of {where}, which is {value!r} and has none")


# ---- values as typed -------------------------------------------------------------------------------------------------


def _parse(old: Any, hint: Any, text: str | None, where: str) -> Any:
    """The value that a text means where `hint` is expected; `specs.fit` judges it afterwards."""
    members = _members(hint)
    if text is None:
        if bool in members:
            return True
        raise ConfigError(f"{where}: expected a value, got nothing")
    if text.strip() == "None" and str not in members - {types.NoneType}:
        return None
    kind = _kind(hint)
    if kind:
        new = _spec(text, kind, where)
        same = isinstance(old, Spec) and old.name == new.name and "(" not in text
        return old if same else new
    if any(dataclasses.is_dataclass(one) and one is not Spec for one in members):
        raise ConfigError(f"{where}: expected one of its fields, such as --config.{where}.{_first(members)}=VALUE")
    many = next((one for one in members if one is tuple or typing.get_origin(one) is tuple), None)
    return _parse_many(many, text, where) if many is not None else _literal(text, members)


def _parse_many(hint: Any, text: str, where: str) -> tuple[Any, ...]:
    inner = _element(hint, 0)
    bare = text.strip()
    if bare[:1] + bare[-1:] in ("()", "[]"):
        bare = bare[1:-1]
    parts = _at_commas(bare)
    return tuple(_parse(None, inner, part, where) for part in parts)


def _literal(text: str, members: set[Any]) -> Any:
    """A Python literal, else the text itself; plain text where only text is expected."""
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = {"true": True, "false": False}.get(text.lower(), text) if bool in members else text
    only_text = members <= {str, types.NoneType} or all(typing.get_origin(one) is Literal for one in members)
    if only_text and not isinstance(value, str | types.NoneType):
        return text
    return specs.freeze(value)


def _spec(text: str, kind: str, where: str) -> Spec:
    """`adam`, or `adam(learning_rate=1e-3)`."""
    name, bracket, _ = text.strip().partition("(")
    if not bracket:
        return Spec(kind, name)
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("expected fields by name")
        fields = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    except (ValueError, SyntaxError) as error:
        raise ConfigError(f"{where}: expected NAME or NAME(field=value, ...), got {text!r}") from error
    return Spec(kind, name, fields)


def _at_commas(text: str) -> list[str]:
    """Parts between the commas that no bracket or quote encloses."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        depth += (sign in "([{") - (sign in ")]}") if not quote else 0
        if sign == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def _members(hint: Any) -> set[Any]:
    """The types that a hint allows, unions and marks opened."""
    if typing.get_origin(hint) is Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return {inner for one in typing.get_args(hint) for inner in _members(one)}
    return {hint}


def _kind(hint: Any) -> str | None:
    if typing.get_origin(hint) is Annotated:
        return next((one.of for one in typing.get_args(hint)[1:] if isinstance(one, Kind)), None)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for found in map(_kind, typing.get_args(hint)) if found), None)
    return None


def _element(hint: Any, index: int) -> Any:
    many = next((one for one in _members(hint) if typing.get_origin(one) is tuple), None)
    args = typing.get_args(many)
    if not args:
        return Any
    return args[0] if args[-1] is Ellipsis else args[min(index, len(args) - 1)]


def _first(members: set[Any]) -> str:
    record = next(one for one in members if dataclasses.is_dataclass(one))
    return dataclasses.fields(record)[0].name
