"""From a name to its factory, and from the signature of a factory to its fields. Nothing is registered."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

from learner_jax.errors import ConfigError
from learner_jax.specs.spec import ALIASES, Spec
from learner_jax.specs.words import either, near, singular

KINDS = ("algorithms", "aggregators", "models", "tasks", "partitions", "optimizers", "transforms")
IN_OPTAX = ("optimizers", "transforms")
_HOMES = {"partitions": "learner_jax.data.partition"}


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
        raise ConfigError(f"expected one of {either(KINDS)}, got kind {kind!r}")
    if name.isidentifier() and not name.startswith("_"):
        found = _in_optax(kind, name) if kind in IN_OPTAX else _in_package(kind, name)
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
    raise ConfigError(f"no {singular(kind)} {name!r}{near(name, names) or some}")


def known(kind: str) -> list[str]:
    """Names that `resolve` finds, sorted."""
    names = {point.name for point in metadata.entry_points(group=f"learner.{kind}")}
    if kind in IN_OPTAX:
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
    space = {**vars(typing), **getattr(inspect.unwrap(factory), "__globals__", {}), **ALIASES}
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
