"""A method with its settings, from the JSON of a study, as one writes it: "fedprox (mu 0.041, local sgd (...))"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard


def written(value: Any) -> str:
    """A setting, or a named thing with its settings, in words.

    The learning rate of an optimizer stands with the optimizer. Left out is what says nothing: a setting that is None
    or empty, and a server that adds the average update as it is.

    Args:
      value: as JSON has it; a named thing is {"kind", "name", "fields"}.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if abs(value) < 1e6 else str(value)
    if _named(value):
        fields = _settings(value.get("fields") or {})
        return f"{value['name']} ({', '.join(fields)})" if fields else str(value["name"])
    if isinstance(value, Mapping):
        return f"({', '.join(_settings(value))})"
    if isinstance(value, list | tuple) and not value:
        return "none"
    if isinstance(value, list | tuple):
        many = any(isinstance(one, Mapping | list | tuple) and not _named(one) for one in value)
        return f"{len(value)} of them" if many else f"({', '.join(map(written, value))})"
    return str(value)


def _named(value: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and "name" in value and "fields" in value


def _settings(fields: Mapping[str, Any]) -> list[str]:
    """Each setting in words, plain values first."""
    fields = _with_rates({name: value for name, value in fields.items() if value is not None and value != ""})
    ordered = sorted(fields.items(), key=lambda one: _named(one[1]))
    return [_setting(name, value) for name, value in ordered if not _adds_the_average(name, value)]


def _setting(name: str, value: Any) -> str:
    """A name and its value; one word where a column is named as what it is for."""
    name, said = _words(name), written(value)
    return name if said == name else f"{name} {said}"


def _with_rates(fields: dict[str, Any]) -> dict[str, Any]:
    """`local_lr` moves into `local`, where that is an optimizer; its own learning rate is the one that holds."""
    fields = dict(fields)
    for name in [name for name in fields if name.endswith("_lr")]:
        optimizer = fields.get(name.removesuffix("_lr"))
        if _named(optimizer):
            inside = {"learning_rate": fields.pop(name), **(optimizer.get("fields") or {})}
            fields[name.removesuffix("_lr")] = {**optimizer, "fields": inside}
    return fields


def _adds_the_average(name: str, value: Any) -> bool:
    return name == "server" and _named(value) and (value["name"], value["fields"]) == ("sgd", {"learning_rate": 1})


def _words(name: str) -> str:
    name = f"{name.removesuffix('_lr')} learning rate" if name.endswith("_lr") else name
    return name.replace("_", " ")
