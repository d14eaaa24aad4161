"""Which function a task was given, as text: so that a run is not gone on with by another loss.

A function that can be imported is known by its module and name. One that cannot be told apart by them (a lambda, a
function inside another, one typed into a notebook) is known by its code as well: its instructions, the names and
constants in them, its defaults, and the plain values that it closes over
or reads beside it. Comments and line numbers do not count.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from learner_jax.specs import Spec
from learner_jax.types import Metric, Task

_PLAIN = (bool, int, float, complex, str, bytes)


def given_task(task: Task) -> Spec:
    """A task that was handed over as functions, as a Spec: the part of a study's manifest that names its loss.

    Args:
      task: its model and its checklist are no part of it.
    """
    return Spec("tasks", "given", {"loss": identity(task.loss), "metrics": tuple(map(_metric, task.metrics))})


def identity(function: Any) -> str:
    """ "optax.losses._classification.sigmoid_binary_cross_entropy", "mine.make.<locals>.loss 3f9a0c12d4e5b678"."""
    inner = function.func if isinstance(function, functools.partial) else function
    name = _name(inner)
    return name if _importable(function) else f"{name} {_digest(_described(function))}"


def _name(value: Any) -> str:
    """Module and name of what has them, else of its type."""
    named: Any = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', None)}.{named.__qualname__}"


def _metric(metric: Metric) -> str:
    """ "auroc 5d41402abc4b2a76": its name, and what its functions are."""
    return f"{metric.name} {_digest([identity(part) if callable(part) else repr(part) for part in metric[1:]])}"


def _importable(function: Any) -> bool:
    name, module = getattr(function, "__qualname__", "<"), getattr(function, "__module__", None)
    return "<" not in name and module not in (None, "__main__") and not hasattr(function, "__self__")


def _digest(description: Any) -> str:
    return hashlib.sha256(repr(description).encode()).hexdigest()[:16]


def _described(value: Any, within: tuple[int, ...] = ()) -> Any:
    """Nested tuples of text, the same in every process for the same code and the same values.

    Args:
      value: a function, or what one is made of.
      within: ids of the values that hold this one: a function may close over itself.
    """
    if id(value) in within:
        return "itself"
    inside = functools.partial(_described, within=(*within, id(value)))
    if value is None or value is Ellipsis or isinstance(value, _PLAIN):
        return repr(value)
    if isinstance(value, types.CodeType):
        return ("code", value.co_code.hex(), value.co_names, tuple(map(inside, value.co_consts)))
    if isinstance(value, types.FunctionType):
        if _importable(value):
            return identity(value)
        parts = (value.__code__, value.__defaults__, value.__kwdefaults__, _closed_over(value), _globals(value))
        return ("function", *map(inside, parts))
    if isinstance(value, functools.partial):
        return ("partial", *map(inside, (value.func, value.args, value.keywords)))
    if isinstance(value, types.MethodType):
        return ("method", *map(inside, (value.__func__, value.__self__)))
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, *map(inside, value))
    if isinstance(value, (set, frozenset)):
        return ("set", *sorted(repr(inside(one)) for one in value))
    if isinstance(value, Mapping):
        return ("mapping", *sorted((repr(key), repr(inside(one))) for key, one in value.items()))
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        array = np.asarray(value)
        return ("array", str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).hexdigest())
    wrapped = inside(getattr(value, "__wrapped__", None))  # jax.jit of a function
    return (_name(value), wrapped, inside(_state(value)))


def _closed_over(function: types.FunctionType) -> list[Any]:
    return [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """The numbers and texts that a function may read beside it, and the functions that cannot be told by name."""
    there = {name: function.__globals__[name] for name in _names(function.__code__) if name in function.__globals__}
    return {
        name: value
        for name, value in there.items()
        if isinstance(value, _PLAIN) or (isinstance(value, types.FunctionType) and not _importable(value))
    }


def _names(code: types.CodeType) -> set[str]:
    """Of globals and attributes, in the code and in that of the functions inside it."""
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, types.CodeType)))


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object that is called like a function; of what has a name, and of a module, none."""
    return (
        {} if hasattr(value, "__qualname__") or isinstance(value, types.ModuleType) else getattr(value, "__dict__", {})
    )
