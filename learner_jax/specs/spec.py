"""A `Spec`: a named thing with its hyperparameters; frozen, hashable, the same JSON in whatever order it was set."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

from learner_jax.errors import ConfigError


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
        return self.name + (
            f"({', '.join(f'{k}={text_of(v)}' for k, v in self.fields.items())})" if self.fields else ""
        )

    def but(self, **fields: Any) -> Spec:
        """The same thing with some fields set anew."""
        return Spec(self.kind, self.name, {**self.fields, **fields})


class Kind(NamedTuple):
    """Marks an annotation whose values are Specs of this kind (a bare name stands for a Spec without fields)."""

    of: str


Optimizer = Annotated[str | Spec, Kind("optimizers")]
Transform = Annotated[str | Spec, Kind("transforms")]
ModelSpec = Annotated[str | Spec, Kind("models")]
ALIASES: dict[str, Any] = {"Optimizer": Optimizer, "Transform": Transform, "ModelSpec": ModelSpec}


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


def plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(plain(one) for one in value.values())
    if isinstance(value, tuple):
        return all(plain(one) for one in value)
    return value is None or isinstance(value, Spec) or type(value) in (bool, int, float, str)


def text_of(value: Any) -> str:
    text = str(value) if isinstance(value, Spec) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
