"""A `Study`: the config, as plain values and Specs, its canonical JSON both ways, and the digest of what it means."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from learner_jax.errors import ConfigError
from learner_jax.specs.spec import Fields, Kind, Spec, freeze, text_of, thaw, to_json
from learner_jax.specs.words import near, no_field

_T = typing.TypeVar("_T")
_FEDAVG = Spec("algorithms", "fedavg")
_MEAN = Spec("aggregators", "mean")


def no_type_check(door: _T) -> _T:
    """Keeps the type checker that tests install out of a record or a function that judges its values by itself."""
    return door


def by_name(record: type[_T]) -> type[_T]:
    """A record that answers a field it does not have, or that is missing, in one line with the near names."""
    made = record.__init__

    @functools.wraps(made)
    def init(self: Any, *args: Any, **given: Any) -> None:
        fields = {field.name: field for field in dataclasses.fields(self)}
        wrong = [no_field(record.__name__, name, fields) for name in given if name not in fields]
        needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in given]
        if args:
            such = f"such as {next(iter(fields))}=..., got {len(args)} without a name"
            wrong.append(f"{record.__name__}: expected its fields by name, {such}")
        elif needed:
            wrong.append(f"{record.__name__} needs {' and '.join(needed)}, got nothing there")
        if wrong:
            raise ConfigError("; ".join(wrong))
        made(self, **given)

    record.__init__ = init
    return record


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where the rows are. source: a shipped sample's name, a file or a folder with one file a site."""

    source: str = ""
    site_column: str | None = "site"
    split_column: str | None = "split"
    partition: Annotated[Spec, Kind("partitions")] | None = None
    sites: tuple[str, ...] | None = None


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """How a machine computes; says nothing about what.

    plan: "sequential" one site after the other; "streams" the same on each device of the host; "lanes" several abreast;
    "auto" the second on a CPU and the third elsewhere, or what is clearly quicker by trying where the rounds take a
    minute and more. cache: folder of compiled programs and of plans that were tried, None for none.

    fused: rounds in one compiled call, for thousands of quick ones; one by one where something looks in between (a
    profile, a durable step each round, patience beside states at the sites) and in several processes or by blocks.
    rows_mib: of examples on each device; of more, blocks come from the host while others are worked on; None: what
    fits. states_mib: of all sites' states that may be in memory, where a method keeps some; of more, a round's come
    from the disk; 0: they always do; None: a quarter of the memory. scratch: folder of a nameless file, for rows that
    are packed on the disk (zarr, HDF5, Parquet) and for states where no folder is kept; None for the system's.
    """

    plan: Literal["auto", "sequential", "streams", "lanes"] = "auto"
    streams: int | None = None
    lanes: int | None = None
    threads: int | None = None
    cache: str | None = "~/.cache/learner"
    fused: int = 1
    rows_mib: int | None = None
    states_mib: int | None = None
    scratch: str | None = None


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Federation:
    """When a round may close, and where the coordinator listens.

    quorum: fewest sites with which a round may close at its deadline, or a share of those asked; None: more than half
    of them. buffer: a round closes as soon as so many sites' updates are there, and the others' count in a later one,
    weighed 1/sqrt(1 + rounds late), up to `stale` rounds (FedBuff); None waits for all sites. port 0: any free one;
    line_mbit: of each site's line each way, for the forecast, None for a local network.
    """

    quorum: int | float | None = None
    deadline_s: float = 300.0
    buffer: int | None = None
    stale: int = 20
    host: str = "127.0.0.1"
    port: int = 0
    line_mbit: float | None = None


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Release:
    """What may leave a site beside updates, sums and its own figures. histograms: "plain" lets counts of told chances,
    with and without the outcome, leave as they are, for figures of all sites' patients together; a site must agree
    (`learner join --release_histograms`). Few rows in a bin tell nearly each row's outcome.
    """

    histograms: Literal["none", "plain"] = "none"


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is kept on disk. every: rounds; wait: each save is durable before the next round begins."""

    every: int = 1
    keep_last: int = 3
    keep_best: int = 1
    wait: bool = False


@no_type_check
@by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
    """How a learning step computes, at every site alike. dtype: "bfloat16" runs the model forward and backward in it,
    over weights, sums and judging in `precision`; "full" in that. remat: the forward pass is run again in the backward
    pass in place of being kept: less memory, about a third more time. microbatches: so many equal parts of a batch, one
    after the other, their gradients added up (a model with batch statistics cannot).
    """

    dtype: Literal["full", "bfloat16"] = "full"
    remat: bool = False
    microbatches: int = 1


@no_type_check
@by_name
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
      loader: "lasting" lets a site's shuffled epochs go on from round to round, where steps end within one (rounds in
        which it was not asked count too); "fresh" shuffles in each round.
      cohort: sites asked a round; a float is a share of them, None all.
      patience: rounds without a better `target` before the study stops; None never stops early. References stop by it
        too, each by its own validation rows: pooled by `target`, each site alone by its loss.
      target: the metric that says which round was the best.
      references: what is trained beside the study to compare with: each site alone, all rows in one place, and, if
        asked for (in a simulation), the study once more without each site, `all_but_me`.
      precision: of weights and sums; "float64" is for tests of equality.
      wire: "bfloat16" sends weights and updates rounded to 16 bits a number, half the bytes; "full" as they are.
    """

    name: str
    question: str = ""
    task: Annotated[Spec, Kind("tasks")]
    model: Annotated[Spec, Kind("models")] | None = None
    algorithm: Annotated[Spec, Kind("algorithms")] = _FEDAVG
    aggregator: Annotated[Spec, Kind("aggregators")] = _MEAN
    before: tuple[Annotated[Spec, Kind("transforms")], ...] = ()
    after: tuple[Annotated[Spec, Kind("transforms")], ...] = ()
    rounds: int = 50
    seed: int = 0
    batch_size: int = 64
    epochs: int = 1
    steps: int | None = None
    loader: Literal["fresh", "lasting"] = "fresh"
    cohort: int | float | None = None
    patience: int | None = None
    target: str = "valid/auroc"
    references: tuple[Literal["local_only", "pooled", "all_but_me"], ...] = ("local_only", "pooled")
    precision: Literal["float32", "float64"] = "float32"
    wire: Literal["full", "bfloat16"] = "full"
    data: Data = Data()
    compute: Compute = Compute()
    engine: Engine = Engine()
    federation: Federation = Federation()
    release: Release = Release()
    checkpoint: Checkpoint = Checkpoint()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, freeze(getattr(self, field.name)))
        for field, record in _RECORDS.items():
            value = getattr(self, field)
            if isinstance(value, Mapping):
                object.__setattr__(self, field, record(**value))
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


_RECORDS = {
    "data": Data, "compute": Compute, "engine": Engine, "federation": Federation, "release": Release,
    "checkpoint": Checkpoint,
}  # fmt: skip
_KIND_OF = {"task": "tasks", "model": "models", "algorithm": "algorithms", "aggregator": "aggregators"}


def cache_folder(engine: Engine) -> Path | None:
    """The folder of compiled programs that `engine.cache` names, or None; the default follows XDG_CACHE_HOME."""
    if engine.cache is None:
        return None
    if engine.cache == Engine.cache and os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "learner"
    return Path(engine.cache).expanduser()


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
        raise ConfigError(f"{where or 'study'}: expected a JSON object, got {text_of(tree)}")
    odd = [f"{where}{key}: no such field{near(key, names)}" for key in tree if key not in names]
    empty = dataclasses.MISSING
    odd += [f"{where}{name}: missing" for name, f in names.items() if f.default is empty and name not in tree]
    if odd:
        raise ConfigError("; ".join(odd))
    parts = _RECORDS if cls is Study else {}
    return cls(**{k: _record(parts[k], v, f"{k}.") if k in parts else _value(v) for k, v in tree.items()})


def _value(tree: Any) -> Any:
    if isinstance(tree, dict):
        inside = {key: _value(one) for key, one in tree.items()}
        return Spec(**inside) if set(tree) == {"kind", "name", "fields"} else Fields(inside)
    return tuple(_value(one) for one in tree) if isinstance(tree, list) else tree


def manifest(study: Study) -> str:
    """The canonical JSON that goes to sites: of data.source the name alone, since its folder is this machine's."""
    name = Path(study.data.source).name
    tree = thaw(dataclasses.replace(study, data=dataclasses.replace(study.data, source=name)))
    return to_json(_as_before(study, tree))


def _as_before(study: Study, tree: dict[str, Any]) -> dict[str, Any]:
    """Without what an older site or folder does not know, where it says nothing new."""
    if study.compute == Compute():
        del tree["compute"]
    return tree


def manifest_digest(study: Study) -> str:
    """sha256 (hex) over what a study means, for the people who approve it; give it a checked study.

    How and where it runs is left out: engine, checkpoint, data.source, federation.host, federation.port and line_mbit.
    """
    tree = _as_before(study, thaw(study))
    for part in ("engine", "checkpoint"):
        del tree[part]
    for part, field in (("data", "source"), *(("federation", name) for name in ("host", "port", "line_mbit"))):
        del tree[part][field]
    return hashlib.sha256(to_json(tree).encode()).hexdigest()
