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

from learner_jax.specs.check import check, fit, mistakes, twice
from learner_jax.specs.files import read, shipped
from learner_jax.specs.names import KINDS, Field, known, make, resolve, schema
from learner_jax.specs.spec import Fields, Kind, ModelSpec, Optimizer, Spec, Transform, freeze, thaw, to_json
from learner_jax.specs.study import (
    Checkpoint,
    Compute,
    Data,
    Engine,
    Federation,
    Release,
    Study,
    cache_folder,
    from_json,
    manifest,
    manifest_digest,
)
from learner_jax.specs.words import near, no_field

__all__ = [
    "KINDS",
    "Checkpoint",
    "Compute",
    "Data",
    "Engine",
    "Federation",
    "Field",
    "Fields",
    "Kind",
    "ModelSpec",
    "Optimizer",
    "Release",
    "Spec",
    "Study",
    "Transform",
    "cache_folder",
    "check",
    "fit",
    "freeze",
    "from_json",
    "known",
    "make",
    "manifest",
    "manifest_digest",
    "mistakes",
    "near",
    "no_field",
    "read",
    "resolve",
    "schema",
    "shipped",
    "thaw",
    "to_json",
    "twice",
]
