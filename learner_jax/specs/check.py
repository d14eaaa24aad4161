"""The check of a whole study against the types of its fields and of its factories: every mistake at once."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from learner_jax.errors import ConfigError
from learner_jax.specs import names
from learner_jax.specs.names import IN_OPTAX
from learner_jax.specs.spec import Kind, Spec, freeze, plain, text_of
from learner_jax.specs.study import Study
from learner_jax.specs.words import article, either, near, no_field, singular


def check(study: Study) -> Study:
    """Checks a whole study and gives it back with every value fitted to its type and our defaults filled in.

    Raises:
      ConfigError: one line with every mistake, each with its place, what was expected, what came, and near names.
    """
    fitted, problems = mistakes(study)
    if problems:
        raise ConfigError("; ".join(problems))
    return fitted


def mistakes(study: Study) -> tuple[Study, list[str]]:
    """(the fitted study, everything that is wrong with it): `check` for those who have more to add to the list."""
    problems: list[str] = []
    fitted = _fit_record(study, "", problems)
    return fitted, problems + list(_rules(fitted))


def _rules(study: Study) -> Iterator[str]:
    """What types do not say."""
    least = {"rounds": 1, "batch_size": 1, "epochs": 1, "steps": 1, "patience": 1, "seed": 0, "cohort": 0}
    least |= {"engine.streams": 1, "engine.lanes": 1, "engine.threads": 1, "federation.quorum": 0, "federation.port": 0}
    least |= {"federation.buffer": 1, "federation.stale": 0, "federation.deadline_s": 0}
    least |= {"checkpoint.every": 1, "checkpoint.keep_last": 1, "checkpoint.keep_best": 0}
    least |= {"compute.microbatches": 1, "engine.rows_mib": 1, "engine.states_mib": 0, "engine.fused": 1}
    for path, bound in least.items():
        value: Any = study
        for part in path.split("."):
            value = getattr(value, part, None)
        if type(value) not in (int, float):
            continue  # None, or a wrong type that has been told
        if value < bound:
            yield f"{path}: expected at least {bound}, got {value}"
        if path in ("cohort", "federation.quorum") and value == 0:
            yield f"{path}: expected at least one site, got {value}"
        if path in ("cohort", "federation.quorum") and type(value) is float and value > 1:
            yield f"{path}: expected a share up to 1.0 (or a whole number of sites), got {value}"
        if path == "federation.port" and value > 65535:
            yield f"{path}: expected at most 65535, got {value}"
    parts, size = study.compute.microbatches, study.batch_size
    if type(parts) is int and type(size) is int and parts > 1 and size % parts:
        yield f"compute.microbatches: expected a divisor of batch_size {size}, got {parts}"
    if study.compute.dtype == "bfloat16" and study.algorithm.name in ("newton", "ridge"):
        yield f"compute.dtype: expected full beside {study.algorithm.name}, which is exact, got bfloat16"
    if study.compute.dtype == "bfloat16" and study.precision == "float64":
        yield "compute.dtype: expected full beside precision float64, got bfloat16"
    if study.loader == "lasting" and study.steps is None:
        yield "loader: expected steps beside lasting (without them a round is whole epochs), got none"
    if study.federation.buffer is not None and study.cohort is not None:
        yield f"federation.buffer: expected no cohort beside it, since all sites are at work, got {study.cohort}"
    if type(study.name) is str and not re.fullmatch(r"[\w.][\w .-]{0,63}", study.name):
        yield f"name: expected 1 to 64 letters, digits, spaces, '.', '-' or '_', got {study.name!r}"


def _fit_record(record: Any, where: str, problems: list[str]) -> Any:
    hints = typing.get_type_hints(type(record), include_extras=True)
    new = {
        f.name: fit(getattr(record, f.name), hints[f.name], where + f.name, problems)
        for f in dataclasses.fields(record)
    }
    return dataclasses.replace(record, **new)


def fit(value: Any, hint: Any, where: str, problems: list[str], inherited: tuple[str, ...] = ()) -> Any:
    """Fits one value to an annotation.

    Args:
      value: frozen.
      hint: a type, Optional, Literal, tuple, or one marked by a `Kind`; anything else passes.
      where: path of the field, for messages.
      problems: what is wrong is appended here.
      inherited: fields of a Spec that its owner may fill in (a learning rate beside an optimizer).

    Returns:
      The value, converted where that loses nothing.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kinds = [one.of for one in args[1:] if isinstance(one, Kind)]
        return _fit_spec(value, kinds[0], where, problems, inherited) if kinds else fit(value, args[0], where, problems)
    if origin in (typing.Union, types.UnionType):
        return _fit_union(value, hint, where, problems, inherited)
    if dataclasses.is_dataclass(hint) and hint is not Spec and isinstance(value, typing.cast(type, hint)):
        return _fit_record(value, f"{where}.", problems)
    if origin in (tuple, list) or hint in (tuple, list):
        return _fit_tuple(value, hint, where, problems)
    if hint is float and type(value) is int:
        return float(value)
    if origin is Literal:
        good = any(value == one and type(value) is type(one) for one in args)
    elif hint in (int, float, str, bool, types.NoneType, None):
        good = type(value) is (types.NoneType if hint is None else hint)
    elif hint is Spec or dataclasses.is_dataclass(hint):
        good = isinstance(value, typing.cast(type, hint))
    else:
        good = True  # an annotation that we cannot judge
    if not good:
        guess = near(value, [str(one) for one in args]) if origin is Literal and isinstance(value, str) else ""
        problems.append(f"{where}: expected {words(hint)}, got {text_of(value)}{guess}")
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: expected a finite number, got {value}")
    elif not plain(value):
        problems.append(f"{where}: expected a value that JSON can hold, got {type(value).__name__}")
    return value


def _fit_union(value: Any, hint: Any, where: str, problems: list[str], inherited: tuple[str, ...]) -> Any:
    members = sorted(typing.get_args(hint), key=lambda one: one is not type(value))  # the exact type first
    nearest: list[str] | None = None
    for member in members:
        mine: list[str] = []
        fitted = fit(value, member, where, mine, inherited)
        if not mine:
            return fitted
        if typing.get_origin(member) in (Annotated, Literal) and isinstance(value, str | Spec):
            nearest = mine
    problems.extend(nearest or [f"{where}: expected {words(hint)}, got {text_of(value)}"])
    return value


def _fit_tuple(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    args = typing.get_args(hint)
    if not isinstance(value, tuple):
        problems.append(f"{where}: expected {words(hint)}, got {text_of(value)}")
        return value
    if not args:
        return value
    if typing.get_origin(hint) is list or args[-1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        problems.append(f"{where}: expected {len(args)} values, got {len(value)}")
        return value
    return tuple(fit(one, arg, f"{where}.{i}", problems) for i, (one, arg) in enumerate(zip(value, args, strict=True)))


def _fit_spec(value: Any, kind: str, where: str, problems: list[str], inherited: tuple[str, ...] = ()) -> Any:
    spec = Spec(kind, value) if isinstance(value, str) else value
    if not isinstance(spec, Spec) or spec.kind != kind:
        what = f"the {singular(spec.kind)} {spec.name}" if isinstance(spec, Spec) else text_of(value)
        problems.append(f"{where}: expected {article(singular(kind))}, got {what}")
        return value
    try:
        fields = names.schema(kind, spec.name)
    except ConfigError as error:
        problems.append(f"{where}: {error}")
        return spec
    for name in spec.fields:
        if name not in fields:
            problems.append(f"{where}.{name}: {no_field(spec.name, name, fields)}")
    new = {}
    for name, field in fields.items():
        default = spec.fields.get(name, field.default)
        if default is inspect.Parameter.empty:
            if name not in inherited:
                problems.append(f"{where}.{name}: {spec.name} needs {words(field.hint)} here, got nothing")
        elif name in spec.fields or (kind not in IN_OPTAX and plain(freeze(default))):
            own_rate = any(one.endswith("_lr") or one == "learning_rate" for one in fields)
            rate = ("learning_rate",) if own_rate or name not in spec.fields else ()
            new[name] = fit(freeze(default), field.hint, f"{where}.{name}", problems, rate)
    fitted = Spec(kind, spec.name, new)
    for name in spec.fields:
        if name in fields and not fields[name].required:
            problems += twice(fitted, name, where, fields[name].default)
    return fitted


def twice(spec: Spec, name: str, where: str, default: Any = None) -> list[str]:
    """What is wrong where a rate such as `local_lr` is set and the optimizer beside it, `local`, says its own.

    The optimizer's own would hold and the other say nothing. The default counts as not set: it stands in every study
    that was checked before.

    Args:
      spec: a method, fitted.
      name: of the field that was set.
      where: path of the method.
      default: of the field; None to count any value as set.
    """
    beside = spec.fields.get(name.removesuffix("_lr")) if name.endswith("_lr") else None
    if not isinstance(beside, Spec) or "learning_rate" not in beside.fields or spec.fields[name] == default:
        return []
    own = f"{beside.fields['learning_rate']} in {where}.{name.removesuffix('_lr')}.learning_rate"
    return [f"{where}.{name}: expected it once, got {spec.fields[name]} here and {own}"]


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", types.NoneType: "None"}


def words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kinds = [one.of for one in args[1:] if isinstance(one, Kind)]
        return article(singular(kinds[0])) if kinds else words(args[0])
    if origin in (typing.Union, types.UnionType):
        return either(dict.fromkeys(words(one) for one in args))
    if origin is Literal:
        return either(str(one) for one in args)
    if origin in (tuple, list) or hint in (tuple, list):
        return f"a list ({words(args[0])} each)" if args else "a list"
    return _WORDS.get(hint, "a value")
