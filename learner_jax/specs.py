"""The config: a `Study` of plain values and `Spec`s, its one JSON form, and the check that lists every mistake at once.

A `Spec` is a named thing with its hyperparameters: an algorithm, an aggregator, a model, a task, an optimizer, a
transform. Its name resolves to a *factory*: the attribute of that name in `learner_jax.<kind>`, then an entry point of
the group `learner.<kind>`, so that a method of one's own is one file in one's own package; optimizers and transforms
are those of optax. The factory's signature is the schema: parameters, defaults, annotations. Nothing is registered.

`check(study)` fits each value to its annotation (an int given for a float becomes a float, a list a tuple, a name a
Spec), fills the defaults of our own factories in, so that the canonical JSON says all that the study means, and raises
one ConfigError that lists everything wrong, with near names. No jax is imported before a name is resolved.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from learner_jax.errors import ConfigError

KINDS = ("algorithms", "aggregators", "models", "tasks", "partitions", "optimizers", "transforms")
_OPTAX = ("optimizers", "transforms")
_HOMES = {"partitions": "learner_jax.data.partition"}
_T = typing.TypeVar("_T")


# ---- Spec ------------------------------------------------------------------------------------------------------------


class Fields(Mapping[str, Any]):
    """Hyperparameters by name: read-only, hashable, in the order of their names; lists become tuples."""

    __slots__ = ("_of",)

    def __init__(self, of: Mapping[str, Any] = types.MappingProxyType({})):
        self._of = {str(key): freeze(of[key]) for key in sorted(of)}

    def __getitem__(self, key: str) -> Any:
        return self._of[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._of)

    def __len__(self) -> int:
        return len(self._of)

    def __hash__(self) -> int:
        return hash(tuple(self._of.items()))

    def __repr__(self) -> str:
        return repr(self._of)


@dataclasses.dataclass(frozen=True)
class Spec:
    """A named thing with its hyperparameters.

    Attributes:
      kind: one of `KINDS`.
      name: as resolved: "scaffold".
      fields: those that were set; the factory's defaults hold for the others.
    """

    kind: str
    name: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=Fields)

    def __post_init__(self) -> None:
        if not isinstance(self.fields, Fields):
            object.__setattr__(self, "fields", Fields(self.fields))

    def __str__(self) -> str:
        return self.name + (f"({', '.join(f'{k}={_text(v)}' for k, v in self.fields.items())})" if self.fields else "")

    def but(self, **fields: Any) -> Spec:
        """The same thing with some fields set anew."""
        return Spec(self.kind, self.name, {**self.fields, **fields})


class Kind(NamedTuple):
    """Marks an annotation whose values are Specs of this kind (a bare name stands for a Spec without fields)."""

    of: str


Optimizer = Annotated[str | Spec, Kind("optimizers")]
Transform = Annotated[str | Spec, Kind("transforms")]
ModelSpec = Annotated[str | Spec, Kind("models")]
_ALIASES: dict[str, Any] = {"Optimizer": Optimizer, "Transform": Transform, "ModelSpec": ModelSpec}


def no_type_check(record: type[_T]) -> type[_T]:
    """Keeps the type checker that tests install out of a record: `check` judges its values and lists all mistakes."""
    return record


# ---- Study -----------------------------------------------------------------------------------------------------------


@no_type_check
@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where the rows are. source: a shipped sample's name, a file or a folder with one file a site."""

    source: str = ""
    site_column: str | None = "site"
    split_column: str | None = "split"
    partition: Annotated[Spec, Kind("partitions")] | None = None
    sites: tuple[str, ...] | None = None


@no_type_check
@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How a machine computes; says nothing about what. cache: folder of compiled programs, None for none."""

    plan: Literal["auto", "sequential", "streams", "lanes"] = "auto"
    streams: int | None = None
    lanes: int | None = None
    threads: int | None = None
    cache: str | None = "~/.cache/learner"


@no_type_check
@dataclasses.dataclass(frozen=True, kw_only=True)
class Federation:
    """When a round may close, and where the coordinator listens.

    quorum: sites, or a share of the cohort, None all of it; port 0: any free one.
    """

    quorum: int | float | None = None
    deadline_s: float = 300.0
    host: str = "127.0.0.1"
    port: int = 0


@no_type_check
@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is kept on disk. every: rounds; wait: each save is durable before the next round begins."""

    every: int = 1
    keep_last: int = 3
    keep_best: int = 1
    wait: bool = False


@no_type_check
@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """One training, from the question to the last round.

    Attributes:
      name: what the study is called; part of every key that it draws.
      question: one sentence for the people who approve it.
      task: what is predicted from what.
      model: None for the task's own default.
      algorithm, aggregator: what is learned; how updates meet.
      before, after: optax transformations at the site, before an update is weighted, and at the coordinator.
      rounds: learning rounds.
      seed: of everything that is drawn.
      batch_size: rows a local step.
      epochs: passes over a site's rows a round.
      steps: local steps a round in place of epochs.
      cohort: sites asked a round; a float is a share of them, None all.
      patience: rounds without a better `target` before the study stops; None never stops early.
      target: the metric that says which round was the best.
      references: what is trained beside the study to compare with.
      precision: of weights and sums; "float64" is for tests of equality.
    """

    name: str
    question: str = ""
    task: Annotated[Spec, Kind("tasks")]
    model: Annotated[Spec, Kind("models")] | None = None
    algorithm: Annotated[Spec, Kind("algorithms")] = Spec("algorithms", "fedavg")
    aggregator: Annotated[Spec, Kind("aggregators")] = Spec("aggregators", "mean")
    before: tuple[Annotated[Spec, Kind("transforms")], ...] = ()
    after: tuple[Annotated[Spec, Kind("transforms")], ...] = ()
    rounds: int = 50
    seed: int = 0
    batch_size: int = 64
    epochs: int = 1
    steps: int | None = None
    cohort: int | float | None = None
    patience: int | None = None
    target: str = "valid/auroc"
    references: tuple[Literal["local_only", "pooled"], ...] = ("local_only", "pooled")
    precision: Literal["float32", "float64"] = "float32"
    data: Data = Data()
    engine: Engine = Engine()
    federation: Federation = Federation()
    checkpoint: Checkpoint = Checkpoint()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, freeze(getattr(self, field.name)))
        for field, kind in _KIND_OF.items():
            value = getattr(self, field)
            if isinstance(value, str):
                object.__setattr__(self, field, Spec(kind, value))
        for field in ("before", "after"):
            value = getattr(self, field)
            value = (value,) if isinstance(value, str | Spec) else value
            if isinstance(value, tuple):
                value = tuple(Spec("transforms", one) if isinstance(one, str) else one for one in value)
            object.__setattr__(self, field, value)

    def to_json(self) -> str:
        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Study:
        return from_json(text)


_KIND_OF = {"task": "tasks", "model": "models", "algorithm": "algorithms", "aggregator": "aggregators"}


def cache_folder(engine: Engine) -> Path | None:
    """The folder of compiled programs that `engine.cache` names, or None; the default follows XDG_CACHE_HOME."""
    if engine.cache is None:
        return None
    if engine.cache == Engine.cache and os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "learner"
    return Path(engine.cache).expanduser()


# ---- names and factories ---------------------------------------------------------------------------------------------


def near(word: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """The words " (did you mean a or b?)" for a misspelt one, "" where nothing is near; show: how each is written."""
    found = difflib.get_close_matches(word.lower(), list(known), n=3, cutoff=0.55)
    return f" (did you mean {_either(show(one) for one in found)}?)" if found else ""


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The factory that a name stands for.

    Args:
      kind: one of `KINDS`.
      name: "scaffold", "adam".

    Returns:
      The attribute of `learner_jax.<kind>`, the entry point of `learner.<kind>`, or the factory in optax.

    Raises:
      ConfigError: no such name (near ones are named), or its package cannot be imported.
    """
    if kind not in KINDS:
        raise ConfigError(f"expected one of {_either(KINDS)}, got kind {kind!r}")
    if name.isidentifier() and not name.startswith("_"):
        found = _in_optax(kind, name) if kind in _OPTAX else _in_package(kind, name)
        if found is not None:
            return found
    for point in metadata.entry_points(group=f"learner.{kind}", name=name):
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            maker = point.dist.name if point.dist else point.value
            raise ConfigError(f"{name} of package {maker} cannot be loaded: {error}") from error
    names = known(kind)
    some = f" (there are {', '.join(names)})" if 0 < len(names) <= 12 else ""
    raise ConfigError(f"no {_singular(kind)} {name!r}{near(name, names) or some}")


def known(kind: str) -> list[str]:
    """Names that `resolve` finds, sorted."""
    names = {point.name for point in metadata.entry_points(group=f"learner.{kind}")}
    if kind in _OPTAX:
        optax = importlib.import_module("optax")
        return sorted(names | {name for name in dir(optax) if name[0] != "_" and _in_optax(kind, name)})
    package = _module(_home(kind))
    if package is not None:
        listed = getattr(package, "__all__", None)
        inside = (*dir(package), *(found.name for found in pkgutil.iter_modules(getattr(package, "__path__", ()))))
        public = [name for name in (inside if listed is None else listed) if not name.startswith("_")]
        names |= {name for name in public if _in_package(kind, name)}
    return sorted(names)


def _home(kind: str) -> str:
    return _HOMES.get(kind, f"learner_jax.{kind}")


def _module(name: str) -> types.ModuleType | None:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None
        raise


def _in_package(kind: str, name: str) -> Callable[..., Any] | None:
    home = _home(kind)
    package = _module(home)
    found = getattr(package, name, None)
    if found is None and hasattr(package, "__path__") and importlib.util.find_spec(f"{home}.{name}"):
        found = _module(f"{home}.{name}")
    if isinstance(found, types.ModuleType):  # a submodule, once imported, hides the lazy attribute of its own name
        found = getattr(found, name, None)
    return found if inspect.isfunction(found) and _makes(found, kind) else None


def _makes(factory: Callable[..., Any], kind: str) -> bool:
    """Whether a function is a factory of this kind and no helper beside it: by what it returns, if it says so."""
    signature = inspect.signature(factory)
    returned = signature.return_annotation
    text = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    record = kind.removesuffix("s").capitalize()
    if returned is not inspect.Signature.empty and record not in text:
        return False
    keyword_only = all(one.kind is one.KEYWORD_ONLY for one in signature.parameters.values())
    return keyword_only if kind != "algorithms" else bool(signature.parameters)


def _in_optax(kind: str, name: str) -> Callable[..., Any] | None:
    found = getattr(importlib.import_module("optax"), name, None)
    if not inspect.isfunction(found):
        return None
    signature = inspect.signature(found)
    returned = signature.return_annotation
    if "GradientTransformation" not in (returned if isinstance(returned, str) else getattr(returned, "__name__", "")):
        return None
    if any(one.kind is one.VAR_POSITIONAL for one in signature.parameters.values()):  # chain(...) takes no fields
        return None
    return found if kind == "transforms" or "learning_rate" in signature.parameters else None


class Field(NamedTuple):
    """One hyperparameter of a factory. default is `inspect.Parameter.empty` where one must be given."""

    name: str
    hint: Any
    default: Any

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


def schema(kind: str, name: str) -> dict[str, Field]:
    """The fields of a factory, from its signature; an algorithm's first parameter, the loss, is not one.

    Raises:
      ConfigError: the name does not resolve.
    """
    factory = resolve(kind, name)
    parameters = list(inspect.signature(factory).parameters.values())
    if kind == "algorithms" and parameters and parameters[0].kind is not inspect.Parameter.KEYWORD_ONLY:
        parameters = parameters[1:]
    skip = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    space = {**vars(typing), **getattr(inspect.unwrap(factory), "__globals__", {}), **_ALIASES}
    return {
        one.name: Field(one.name, _hint(one.annotation, space), one.default)
        for one in parameters
        if one.kind not in skip
    }


def _hint(annotation: Any, space: dict[str, Any]) -> Any:
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        try:
            return eval(annotation, dict(space))  # the factory's own source; names under TYPE_CHECKING stay unknown
        except (NameError, AttributeError, TypeError):
            return Any
    return annotation


def make(spec: Spec | str, *given: Any, kind: str = "optimizers", **defaults: Any) -> Any:
    """Calls a Spec's factory: `make(spec, loss)`, `make("sgd", learning_rate=1.0)`.

    Args:
      spec: a Spec, or the name of one of `kind`.
      given: positional arguments, such as an algorithm's loss.
      kind: of a bare name.
      defaults: fields that the Spec may override, such as the learning rate of an optimizer.

    Returns:
      What the factory makes.
    """
    spec = Spec(kind, spec) if isinstance(spec, str) else spec
    return resolve(spec.kind, spec.name)(*given, **{**defaults, **spec.fields})


# ---- check -----------------------------------------------------------------------------------------------------------


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
    least |= {"federation.deadline_s": 0, "checkpoint.every": 1, "checkpoint.keep_last": 1, "checkpoint.keep_best": 0}
    for path, bound in least.items():
        value: Any = study
        for part in path.split("."):
            value = getattr(value, part)
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
        problems.append(f"{where}: expected {_words(hint)}, got {_text(value)}{guess}")
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{where}: expected a finite number, got {value}")
    elif not _plain(value):
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
    problems.extend(nearest or [f"{where}: expected {_words(hint)}, got {_text(value)}"])
    return value


def _fit_tuple(value: Any, hint: Any, where: str, problems: list[str]) -> Any:
    args = typing.get_args(hint)
    if not isinstance(value, tuple):
        problems.append(f"{where}: expected {_words(hint)}, got {_text(value)}")
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
        what = f"the {_singular(spec.kind)} {spec.name}" if isinstance(spec, Spec) else _text(value)
        problems.append(f"{where}: expected {_article(_singular(kind))}, got {what}")
        return value
    try:
        fields = schema(kind, spec.name)
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
                problems.append(f"{where}.{name}: {spec.name} needs {_words(field.hint)} here, got nothing")
        elif name in spec.fields or (kind not in _OPTAX and _plain(freeze(default))):
            own_rate = any(one.endswith("_lr") or one == "learning_rate" for one in fields)
            rate = ("learning_rate",) if own_rate or name not in spec.fields else ()
            new[name] = fit(freeze(default), field.hint, f"{where}.{name}", problems, rate)
    return Spec(kind, spec.name, new)


# ---- JSON ------------------------------------------------------------------------------------------------------------


def no_field(of: str, name: str, fields: Iterable[str]) -> str:
    """The words for a field that is not there: near ones, else all that there are."""
    names = list(fields)
    return f"{of} has no field {name!r}" + (near(name, names) or f" (it has {', '.join(names) or 'none'})")


def freeze(value: Any) -> Any:
    """Lists become tuples, dicts Fields, NumPy scalars Python's."""
    if type(value) in (list, tuple):
        return tuple(freeze(one) for one in value)
    if isinstance(value, dict):
        return Fields(value)
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def thaw(value: Any) -> Any:
    """A value as `json` takes it: dicts, lists, numbers, text."""
    if isinstance(value, Spec) or dataclasses.is_dataclass(value):
        return {field.name: thaw(getattr(value, field.name)) for field in dataclasses.fields(typing.cast(Any, value))}
    if isinstance(value, Mapping):
        return {key: thaw(one) for key, one in value.items()}
    return [thaw(one) for one in value] if isinstance(value, tuple | list) else value


def to_json(value: Any) -> str:
    """The canonical form of a Study, Spec or part of one: keys sorted, no spaces, UTF-8 text.

    Raises:
      ConfigError: something inside is not a plain value, or not a finite number.
    """
    try:
        return json.dumps(thaw(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"expected plain values in the config (numbers, text, lists, Specs), got: {error}") from error


def from_json(text: str) -> Study:
    """The Study of a canonical (or any) JSON text.

    Raises:
      ConfigError: not JSON, or a key that a Study has not.
    """
    try:
        tree = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"expected the JSON of a study: {error}") from error
    return _record(Study, tree, "")


def _record(cls: type, tree: Any, where: str) -> Any:
    names = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(tree, dict):
        raise ConfigError(f"{where or 'study'}: expected a JSON object, got {_text(tree)}")
    odd = [f"{where}{key}: no such field{near(key, names)}" for key in tree if key not in names]
    empty = dataclasses.MISSING
    odd += [f"{where}{name}: missing" for name, f in names.items() if f.default is empty and name not in tree]
    if odd:
        raise ConfigError("; ".join(odd))
    parts = {"data": Data, "engine": Engine, "federation": Federation, "checkpoint": Checkpoint} if cls is Study else {}
    return cls(**{k: _record(parts[k], v, f"{k}.") if k in parts else _value(v) for k, v in tree.items()})


def _value(tree: Any) -> Any:
    if isinstance(tree, dict):
        inside = {key: _value(one) for key, one in tree.items()}
        return Spec(**inside) if set(tree) == {"kind", "name", "fields"} else Fields(inside)
    return tuple(_value(one) for one in tree) if isinstance(tree, list) else tree


def manifest_digest(study: Study) -> str:
    """sha256 (hex) over what a study means, for the people who approve it; give it a checked study.

    How and where it runs is left out: engine, checkpoint, data.source, federation.host, federation.port.
    """
    tree = thaw(study)
    for part in ("engine", "checkpoint"):
        del tree[part]
    for part, field in (("data", "source"), ("federation", "host"), ("federation", "port")):
        del tree[part][field]
    return hashlib.sha256(to_json(tree).encode()).hexdigest()


# ---- words -----------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_plain(one) for one in value.values())
    if isinstance(value, tuple):
        return all(_plain(one) for one in value)
    return value is None or isinstance(value, Spec) or type(value) in (bool, int, float, str)


def _text(value: Any) -> str:
    text = str(value) if isinstance(value, Spec) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _singular(kind: str) -> str:
    return kind.removesuffix("s")


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", types.NoneType: "None"}


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        kinds = [one.of for one in args[1:] if isinstance(one, Kind)]
        return _article(_singular(kinds[0])) if kinds else _words(args[0])
    if origin in (typing.Union, types.UnionType):
        return _either(dict.fromkeys(_words(one) for one in args))
    if origin is Literal:
        return _either(str(one) for one in args)
    if origin in (tuple, list) or hint in (tuple, list):
        return f"a list ({_words(args[0])} each)" if args else "a list"
    return _WORDS.get(hint, "a value")
