"""What `import learner_jax` offers: studies run from a notebook, and methods by their names."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from learner_jax import algorithms, failpoints, spans, specs
from learner_jax import models as models_
from learner_jax import tasks as tasks_
from learner_jax.aggregators import mean as mean_
from learner_jax.aggregators import median as median_
from learner_jax.data.columns import parquet as parquet
from learner_jax.data.sites import SiteData, encode_sites
from learner_jax.engines import machines
from learner_jax.engines.given import check_fit, checked_task, named_sites
from learner_jax.engines.identity import given_task
from learner_jax.engines.metrics_log import metrics_file
from learner_jax.engines.parts import Parts
from learner_jax.engines.sources import chosen_of, frames_of, notes_of, site_of
from learner_jax.engines.trained import TrainedModel
from learner_jax.errors import ConfigError, CorruptError, DataError, StudyError
from learner_jax.events import Event, Observer, fan_out, silent
from learner_jax.specs import Spec, Study
from learner_jax.specs.study import no_type_check
from learner_jax.types import Algorithm, Task

if TYPE_CHECKING:
    import pandas as pd

    from learner_jax.network.tunnel import Proxy

P = ParamSpec("P")


# ---- names: lr.scaffold(local_lr=0.05) is a Spec, the frozen hyperparameters of a factory ----------------------------


def _method(factory: Callable[Concatenate[Any, P], Algorithm]) -> Callable[P, Spec]:
    """The public face of an algorithm's factory: its fields now, the loss later."""

    @functools.wraps(factory, assigned=("__name__", "__doc__"))
    def public(*args: P.args, **fields: P.kwargs) -> Spec:
        return _spec("algorithms", factory.__name__, args, fields)

    return _without_loss(public)


def _named(kind: str, factory: Callable[P, Any]) -> Callable[P, Spec]:
    """The public face of any other factory."""

    @functools.wraps(factory, assigned=("__name__", "__doc__"))
    def public(*args: P.args, **fields: P.kwargs) -> Spec:
        return _spec(kind, factory.__name__, args, fields)

    return public


def _without_loss(public: Callable[P, Spec]) -> Callable[P, Spec]:
    """The signature and the words of a method without the loss, which joins it later."""
    signature = inspect.signature(public)
    parameters = [one for one in signature.parameters.values() if one.kind is one.KEYWORD_ONLY]
    public.__signature__ = signature.replace(parameters=parameters, return_annotation=Spec)  # pyright: ignore
    public.__doc__ = re.sub(r"\n +loss: .*", "", public.__doc__ or "")
    return public


def _spec(kind: str, name: str, args: Sequence[Any], fields: Mapping[str, Any]) -> Spec:
    known = specs.schema(kind, name)
    if args:
        first = next(iter(known), "field")
        raise ConfigError(f"{name}: expected its fields by name, such as {first}=..., got {len(args)} without a name")
    for field in fields:
        if field not in known:
            raise ConfigError(specs.no_field(name, field, known))
    return Spec(kind, name, fields)


columnwise = _method(algorithms.columnwise)
fedavg = _method(algorithms.fedavg)
fedadam = _method(algorithms.fedadam)
fedyogi = _method(algorithms.fedyogi)
fedadagrad = _method(algorithms.fedadagrad)
fedavgm = _method(algorithms.fedavgm)
fedprox = _method(algorithms.fedprox)
newton = _method(algorithms.newton)
ridge = _method(algorithms.ridge)
scaffold = _method(algorithms.scaffold)
mean = _named("aggregators", mean_)
median = _named("aggregators", median_)
mlp = _named("models", models_.mlp)
logistic = _named("models", models_.logistic)
protein_net = _named("models", models_.protein_net)
proteins = _named("tasks", tasks_.proteins)
readmission = _named("tasks", tasks_.readmission)
table = _named("tasks", tasks_.table)


def optimizer(name: str, **fields: Any) -> Spec:
    """An optax optimizer by name: `lr.optimizer("sgd", learning_rate=1.0, momentum=0.9)`."""
    return _spec("optimizers", name, (), fields)


def transform(name: str, **fields: Any) -> Spec:
    """An optax transformation by name: `lr.transform("clip_by_global_norm", max_norm=1.0)`."""
    return _spec("transforms", name, (), fields)


# ---- running ---------------------------------------------------------------------------------------------------------


class Run:
    """A finished run.

    Args:
      result: as in result.json.
      model: the trained model, or how to load it.
      workdir: the run's folder, None if it was kept nowhere.
    """

    def __init__(
        self, result: dict[str, Any], model: TrainedModel | Callable[[], TrainedModel], workdir: Path | None = None
    ):
        self.result, self._model, self.workdir = result, model, workdir

    @property
    def model(self) -> TrainedModel:
        """The model of the best round."""
        if not isinstance(self._model, TrainedModel):
            self._model = self._model()
        return self._model

    @property
    def metrics(self) -> pd.DataFrame:
        """One row a round: train/loss, valid/loss, valid/auroc, ..., seconds, bytes."""
        import pandas as pd

        return pd.DataFrame(self.result["curve"]).set_index("round")

    @property
    def weights_sha256(self) -> str:
        return self.result["weights_sha256"]

    def report(self, path: str | Path) -> Path:
        """Writes the result as one self-contained HTML page."""
        from learner_jax.reports import html

        path = Path(path)
        path.write_text(html.page(self.result), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        from learner_jax.reports import table

        return table.text(self.result)


@no_type_check
def simulate(
    study: Study | str | Path | Task,
    *,
    sites: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    on_event: Observer = silent,
    resume: bool = True,
    profile: str | None = None,
    **fields: Any,
) -> Run:
    """Trains a study with all sites in this process, or in several that `jax.distributed` has joined.

    Args:
      study: a Study, the name of a shipped config, the path of a config file, or a Task.
      sites: name -> (x [n, ...], y [n, ...]), SiteData, or a pandas frame where the task has a checklist; None for what
        the study's `data` names. Of arrays, 10 % are validation rows and 20 % are held back, drawn by the seed. Arrays
        may lie on the disk: a mapped `.npy`, zarr, HDF5, or `lr.parquet`; they are read block by block.
      workdir: the run's folder: checkpoints, journal, metrics, result, model. The same call goes on where it stopped.
        None keeps everything in memory.
      on_event: told what happens.
      resume: False refuses a folder that holds a run.
      profile: rounds of which a trace and a table are written to the run's profile/: "3:5" is rounds 3, 4 and 5.
      **fields: in place of the study's own: `rounds=50`, `algorithm=lr.scaffold(local_lr=0.05)`.

    Returns:
      The finished run.

    Raises:
      ConfigError, DataError, StudyError, StorageError: each says in one line what was expected and what came.
    """
    from learner_jax.engines.profiler import profiled

    study = checked_task(study) if isinstance(study, Task) else study
    task = study if isinstance(study, Task) else None
    study = _study(study, fields)
    _check_profile(profile, study)
    folder = None if workdir is None or not machines.first() else Path(workdir)
    finished = None if folder is None else _already(study, folder, resume, on_event, task)
    if machines.several():  # one keeps the folder and tells; the others go by what it found there
        result = machines.from_first(None if finished is None else finished.result)
        finished = finished or (None if result is None else Run(result, _elsewhere))
        on_event, profile = (on_event, profile) if machines.first() else (silent, None)
    if finished is not None:
        return finished
    if folder is not None:
        on_event = _written(folder, on_event)
    started, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    on_event(Event("start", study.name, data={"kind": "simulation", "rounds": study.rounds}))
    with profiled(profile, folder, "simulation", on_event, study.name) as on_event:
        run = _run(study, task, sites, folder, on_event, started, begun)
    if machines.several():
        machines.meet()
    return run


def _elsewhere() -> TrainedModel:
    raise StudyError("expected the first process to be asked for the model: the run's folder is its own")


def _run(
    study: Study, task: Task | None, sites: Any, folder: Path | None, on_event: Observer, started: str, begun: float
) -> Run:
    from learner_jax.engines import calibrate, judge, outcome
    from learner_jax.engines.simulator import simulate as run_rounds
    from learner_jax.engines.simulator import state_of, template_rows

    parts = built(study, task)
    if folder is not None:
        _begun(folder, study, on_event, sites is None)
    fitted, data, notes = _sites(parts, sites, on_event)
    chosen = chosen_of(study) if sites is None else []
    check_fit(parts, data)
    if parts.task.checklist is not None and fitted:
        parts.check_genes(parts.task.checklist.template(fitted))
    trained, world = run_rounds(parts, data, folder, on_event)
    weights = [parts.federated.model(parts.federated.send(trained.best), state_of(trained.states, place))
               for place in range(len(world.names))]  # fmt: skip
    evaluation: dict[str, Any] = {"cohorts": []}
    binary = judge.is_binary(parts, data)
    judged, models = judge.judgeable(parts, data), {"federated": weights}
    if judged:
        models |= judge.train_references(parts, data, world, on_event)
    moves = calibrate.moves(parts, data, world, models)
    if judged:
        evaluation = judge.judge(parts, data, world, models, fitted, moves)
        on_event(Event("evaluation", study.name, data={"evaluation": evaluation}))
    result = outcome.result(
        study, "simulation", started, time.perf_counter() - begun, trained.history, trained.sha256, evaluation, notes,
        trained.bytes_up, trained.bytes_down,
    )  # fmt: skip
    result["data"] = {
        "source": Path(study.data.source).name if sites is None else "",
        "inputs": outcome.inputs_of(parts, fitted),
        "dealt": outcome.dealt(data, binary),
        "chosen": chosen,
    }
    rows = template_rows(world)
    final = parts.federated.model(parts.federated.send(trained.best), parts.federated.enrol(parts.init_weights(rows)))
    if moves:
        fitted = calibrate.kept(fitted, moves["federated"][0])
    model = TrainedModel(parts, final, fitted, rows)
    if folder is not None:
        finish(folder, study, result, model)
    on_event(Event("done", study.name, len(result["curve"]), data={"result": result}))
    return Run(result, model, folder)


def finish(folder: Path, study: Study, result: dict[str, Any], model: TrainedModel) -> None:
    """Leaves a finished run on disk: model/, report.html, and result.json last."""
    from learner_jax.reports import html
    from learner_jax.reports import result as results
    from learner_jax.storage.atomic import write_bytes

    failpoints.here("coordinator.result.before_model")
    model.save(folder / "model")
    write_bytes(folder / "report.html", html.page(result).encode())
    failpoints.here("coordinator.result.before_result")
    results.save(result, folder / "result.json")
    failpoints.here("coordinator.result.after_result")


def load(folder: str | Path, task: Task | None = None) -> TrainedModel:
    """A saved model.

    Args:
      folder: as `run.model.save` or a run's `model/` left it.
      task: needed where the study was given a Task that no config names.

    Raises:
      StorageError, CorruptError: it is not there, or not readable.
    """
    import jax
    import numpy as np

    from learner_jax import trees
    from learner_jax.engines.outcome import load_model
    from learner_jax.evaluation.calibration import Recalibration

    about, leaves = load_model(Path(folder))
    study = Study.from_json(specs.to_json(about["study"]))
    task = None if task is None else checked_task(task)
    parts = built(study if task is not None else specs.check(study), task)
    rows = trees.nested({name: np.zeros((2, *shape), dtype) for name, (dtype, shape) in about["rows"].items()})
    shapes = jax.eval_shape(parts.init_weights, rows)
    weights = trees.rebuild(shapes, {name: np.asarray(leaf) for name, leaf in leaves.items()})
    try:
        moved = Recalibration(**about["recalibration"]) if "recalibration" in about else None
    except TypeError:
        raise CorruptError(f"expected a saved model in {folder}, got a recalibration of other fields") from None
    return TrainedModel(parts, weights, about["fitted"], rows, moved)


def local(
    study: Study | str | Path,
    *,
    workdir: str | Path,
    sites: int | None = None,
    on_event: Observer = silent,
    resume: bool = True,
    profile: str | None = None,
    **fields: Any,
) -> Run:
    """Trains a study as real processes on this machine: a coordinator here, and a process for each site.

    Args:
      study: as in `simulate`.
      workdir: the run's folder; the same call goes on where it stopped.
      sites: the first so many of the study's sites; None for all.
      on_event: told what happens.
      resume: False refuses a folder that holds a run.
      profile: rounds of which a trace and a table are written to the run's profile/: "3:5" is rounds 3, 4 and 5.
      **fields: in place of the study's own.

    Returns:
      The finished run, with what each site found on its own patients.

    Raises:
      ConfigError, DataError, StudyError, StorageError: each says in one line what was expected and what came.
    """
    from learner_jax.engines.local import run_local
    from learner_jax.engines.profiler import profiled

    study, folder = _first_sites(_study(study, fields), sites), Path(workdir)
    _check_profile(profile, study)
    finished = _already(study, folder, resume, on_event)
    if finished is not None:
        return finished
    tell = _written(folder, on_event)
    tell(Event("start", study.name, data={"kind": "federation", "rounds": study.rounds}))
    parts = built(study)
    frames = frames_of(study)
    _begun(folder, study, tell, True)
    with profiled(profile, folder, "coordinator", tell, study.name) as tell:
        outcome = run_local(parts, frames, folder, tell, {}, profile)
    return _over(parts, outcome, folder, tell)


def coordinate(
    study: Study | str | Path,
    *,
    workdir: str | Path,
    sites: Sequence[str],
    host: str | None = None,
    port: int | None = None,
    address: str | None = None,
    broker: str | None = None,
    on_event: Observer = silent,
    resume: bool = True,
    profile: str | None = None,
    **fields: Any,
) -> Run:
    """Serves a study to sites elsewhere until it is over.

    Args:
      study: as in `simulate`.
      workdir: the run's folder; join codes lie in its join/, one file a site.
      sites: names of the sites that take part.
      host, port: where to listen; None for the study's own.
      address: what sites dial, NAME or NAME:PORT, if it is not the host; goes into join codes.
      broker: a broker's join code, to be reached through it and listen nowhere; "" for the broker joined before.
      on_event: told what happens.
      resume: False refuses a folder that holds a run.
      profile: rounds of which a trace and a table are written to the run's profile/: "3:5" is rounds 3, 4 and 5.
      **fields: in place of the study's own.
    """
    from learner_jax.engines.profiler import profiled
    from learner_jax.engines.serving import serve

    twice = sorted({name for name in sites if list(sites).count(name) > 1})
    if not sites or twice:
        got = f"'{twice[0]}' twice" if twice else "none"
        raise ConfigError(f"sites: expected the names of the sites that take part, each once, got {got}")
    study, folder = _study(study, fields), Path(workdir)
    _check_profile(profile, study)
    study = dataclasses.replace(study, data=dataclasses.replace(study.data, sites=tuple(sites)))
    finished = _already(study, folder, resume, on_event)
    if finished is not None:
        return finished
    tell = _written(folder, on_event)
    tell(Event("start", study.name, data={"kind": "federation", "rounds": study.rounds}))

    def invited(files: Mapping[str, Path], address: str) -> None:
        words = "listening at" if broker is None else "to be reached through the broker at"
        tell(Event("note", study.name, data={"text": f"{words} {address}"}))
        for name, path in files.items():
            tell(Event("note", study.name, data={"text": f"join code of {name}, works once: {path}"}))

    parts = built(study)
    _begun(folder, study, tell, False)
    host = study.federation.host if host is None else host
    port = study.federation.port if port is None else port
    with profiled(profile, folder, "coordinator", tell, study.name) as tell:
        outcome = serve(parts, sites, folder, tell, host, port, invited, address=address, broker=broker)
    return _over(parts, outcome, folder, tell)


def join(
    code: str | None,
    *,
    data: str | Path,
    workdir: str | Path,
    site: str | None = None,
    proxy: Proxy | None = None,
    on_event: Observer = silent,
    release_histograms: bool = False,
    profile: str | None = None,
) -> dict[str, Any]:
    """Takes part in a study with this site's table, until the study is over.

    Args:
      code: the join code; None where `workdir` has joined before.
      data: the site's table, CSV or Parquet.
      workdir: this site's keys and state.
      site: its name; None for the name of the table's file.
      proxy: of `learner_jax.network.tunnel`, where it is the only way out.
      on_event: told what happens.
      release_histograms: this site agrees that counts of told chances leave, where the study asks for them.
      profile: as in `simulate`, of this site's own work; it stays here.

    Returns:
      As `learner_jax.engines.worker.take_part`: study, site, algorithm, rounds, seconds, metrics, weights_sha256, ...
    """
    from learner_jax.data.tables import read_table
    from learner_jax.engines.worker import agrees, take_part

    frame = read_table(data)
    name = site or Path(data).stem
    tell = _written(Path(workdir), on_event)
    from learner_jax.engines.profiler import profiled

    with profiled(profile, Path(workdir), name, tell, name) as tell:
        found = take_part(code, name, frame, Path(workdir), tell, built, agrees(release_histograms), proxy)
    tell(Event("done", found["study"], None, name, {"result": found}))
    return found


def _check_profile(profile: str | None, study: Study) -> None:
    if profile is not None and spans.rounds_of(profile)[-1] > study.rounds:
        raise ConfigError(f"profile: expected rounds up to {study.rounds}, those of the study, got {profile!r}")


def _first_sites(study: Study, count: int | None) -> Study:
    """The study of its first so many sites: who takes part is part of what a run is."""
    names = study.data.sites or tuple(frames_of(study))
    if count is not None and not 1 <= count <= len(names):
        raise ConfigError(f"sites: expected 1 to {len(names)}, the sites of study '{study.name}', got {count}")
    if count is None:
        return study
    return dataclasses.replace(study, data=dataclasses.replace(study.data, sites=tuple(names[:count])))


def _written(folder: Path, observer: Observer) -> Observer:
    """An observer that several threads may tell, and that also writes the run's metrics.jsonl."""
    guard, observer = threading.Lock(), fan_out(metrics_file(folder / "metrics.jsonl"), observer)

    def tell(event: Event) -> None:
        with guard:
            observer(event)

    return tell


def _begun(folder: Path, study: Study, on_event: Observer, read: bool) -> None:
    """Leaves config and versions in the run's folder; `read`: the study's data files are read here."""
    from learner_jax.engines.begun import checksums, write_begun

    unlike = write_begun(folder, study, checksums(study) if read else {})
    if unlike:
        on_event(Event("note", study.name, data={"text": unlike}))


def built(study: Study, task: Task | None = None) -> Parts:
    """A study's parts, with jax set up for it."""
    import jax

    from learner_jax.build import build

    if study.precision == "float64":
        jax.config.update("jax_enable_x64", True)
    _compilation_cache(study)
    return build(study, task)


def _over(parts: Parts, outcome: Any, folder: Path, on_event: Observer) -> Run:
    """A federation's end: everything on disk, and said."""
    from learner_jax.engines.outcome import inputs_of

    result = {**outcome.result, "notes": [*outcome.result["notes"], *notes_of(parts.study)]}
    result["data"] = {"inputs": inputs_of(parts, outcome.fitted)}
    model = TrainedModel(parts, outcome.weights, outcome.fitted, outcome.rows)
    finish(folder, parts.study, result, model)
    on_event(Event("done", parts.study.name, len(result["curve"]), data={"result": result}))
    return Run(result, model, folder)


def _already(study: Study, folder: Path, resume: bool, on_event: Observer, task: Task | None = None) -> Run | None:
    """The finished run in a folder, said to be there; None where there is work to do."""
    found = _finished(study, folder, resume)
    if found is None:
        return None
    on_event(Event("note", study.name, data={"text": f"nothing to do: {folder} holds this study, finished"}))
    on_event(Event("done", study.name, len(found["curve"]), data={"result": found, "finished": True}))
    return Run(found, functools.partial(load, folder / "model", task), folder)


# ---- what a call means -----------------------------------------------------------------------------------------------


def _study(study: Study | str | Path | Task, fields: Mapping[str, Any]) -> Study:
    if isinstance(study, Task):
        target = f"valid/{study.metrics[0].name}" if study.metrics else "valid/loss"
        study = Study(name="study", task=given_task(study), target=target, references=())
        if "references" not in fields:
            fields = {"references": ("local_only", "pooled"), **fields}
        given = _replaced(study, fields)
        checked = specs.check(dataclasses.replace(given, task=Spec("tasks", "readmission")))  # all but the task itself
        return dataclasses.replace(checked, task=given.task)
    if not isinstance(study, Study):
        study = specs.read(str(study))
    return specs.check(_replaced(study, fields))


def _replaced(study: Study, fields: Mapping[str, Any]) -> Study:
    known = [field.name for field in dataclasses.fields(Study)]
    for name in fields:
        if name not in known:
            raise ConfigError(specs.no_field("a study", name, known))
    return dataclasses.replace(study, **fields)


def _finished(study: Study, folder: Path, resume: bool) -> dict[str, Any] | None:
    """The result in a folder, if it is of this very study.

    Raises:
      StudyError: it is another's, or resume is False.
    """
    from learner_jax.reports import result as results

    if not resume and (folder / "journal.sqlite").exists():
        raise StudyError(f"{folder}: holds a run, and going on with it was not asked for; name a new folder")
    if not (folder / "result.json").exists():
        return None
    found = results.load(folder)
    theirs = specs.to_json(found["study"])
    if specs.manifest_digest(Study.from_json(theirs)) != specs.manifest_digest(study):
        raise StudyError(f"expected the folder of study '{study.name}' with these settings, but {folder} holds another "
                         f"finished run ('{found['study'].get('name')}'); name a new folder")  # fmt: skip
    return found


def _sites(parts: Parts, given: Any, on_event: Observer) -> tuple[Any, dict[str, SiteData], list[str]]:
    """(fitted, name -> rows, notes) of what the call or the config names."""
    from learner_jax.data.tables import with_split

    study, checklist = parts.study, parts.task.checklist
    if given is None and checklist is None:
        raise DataError("sites: expected a dict, name -> (x, y), got nothing: this task has no checklist, so a study's "
                        "data cannot name its rows")  # fmt: skip
    given = None if given is None else named_sites(given)
    if given is not None and checklist is not None and checklist.frame is not None:
        given = {
            name: with_split(checklist.frame(value, f"site '{name}'"), study.data.split_column)
            for name, value in given.items()
        }
    elif checklist is None or (given is not None and not all(hasattr(value, "columns") for value in given.values())):
        return None, {n: site_of(n, rows, study.seed, study.engine.scratch) for n, rows in (given or {}).items()}, []
    elif given is not None:
        given = {name: with_split(value, study.data.split_column) for name, value in given.items()}
    frames = frames_of(study) if given is None else dict(given)
    fitted, data = encode_sites(checklist, frames, lambda text: on_event(_note(study, text)))
    on_event(Event("statistics", study.name, data={"sites": len(data), "inputs": len(fitted.get("inputs", ()))}))
    return fitted, data, list(notes_of(study))


def _note(study: Study, text: str) -> Event:
    return Event("note", study.name, data={"text": text})


def _compilation_cache(study: Study) -> None:
    """Compiled programs are kept on disk, so that a second run starts at once."""
    import jax

    folder = specs.cache_folder(study.engine)
    if folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
