"""Examples that stay on the host or its disk and come in blocks: the same rounds as of examples on the device."""

from __future__ import annotations

import itertools
import weakref
from functools import partial
from unittest import mock

import jax
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax import aggregators, algorithms, models, trees
from learner_jax.data.sites import VALID
from learner_jax.engines import streamed
from learner_jax.engines.parts import objective, watching
from learner_jax.engines.program import Plan
from learner_jax.engines.streamed import Streamed, is_streamed, room_of, world_of
from learner_jax.engines.world import Local, build_world, world_sha256
from learner_jax.errors import ConfigError, DataError, StorageError
from learner_jax.federate import federate
from tests.algorithms.studies import WIDTH, cohorts, make_sites, start

SIZES, HELD = (20, 3, 45, 7, 1, 0, 33, 0, 50), (4, 21, 3, 17, 2, 5, 40, 44, 0)
LOCAL = Local(batch_size=8, epochs=2, steps=None, seed=11)
ROW = (WIDTH + 1) * 4  # bytes, float32
ROUNDS = 4
MODEL = models.mlp(hidden=(6,), dropout=0.25)  # with dropout the keys of batches count
LOSS = objective(MODEL, optax.sigmoid_binary_cross_entropy)
METHODS = {
    "fedavg": algorithms.fedavg(LOSS, local_lr=0.02, local="adam"),
    "scaffold": algorithms.scaffold(LOSS),
    "fedadam": algorithms.fedadam(LOSS, server_lr=0.03),
    "fedprox": algorithms.fedprox(LOSS, mu=0.1),
}
RULES = {"mean": aggregators.mean, "median": aggregators.median}
PLANS = {"one after the other": Plan(), "lanes": Plan(1, 2), "streams": Plan(2, 1), "both": Plan(2, 2)}
IN_SHORT = [("fedavg", "mean", "one after the other", 30), ("scaffold", "median", "both", 30)]
EVERY = [case for case in itertools.product(METHODS, RULES, PLANS, (9, 30, 70, 1000)) if case not in IN_SHORT]


def sites():
    return make_sites(SIZES, HELD)


def federated(method="fedavg", rule="mean"):
    return federate(METHODS[method], RULES[rule](), watch=watching(MODEL, optax.sigmoid_binary_cross_entropy, ()))


def resident_and_streamed(method, rule, plan, rows, local=LOCAL):
    """A study with its examples on the device, and the same with places for two blocks of so many rows."""
    whole = start(federated(method, rule), sites(), plan, local, MODEL)
    world = build_world(sites(), np.float32, streamed=True)
    program = Streamed(
        2 * rows * ROW, whole.federated, trees.shapes(whole.weights), world, local, plan, None, 0, None, 16
    )
    assert program.blocks.rows_each <= max(rows, 16) and is_streamed(world) and not is_streamed(whole.world)
    whole.program.__init__(whole.federated, trees.shapes(whole.weights), whole.world, local, plan, eval_batch_size=16)
    return whole, program


def rounds_of(program, study, asked):
    """(digests, metrics, states, look) of some rounds, each prepared while the one before runs."""
    server, states = program.place(study.server), program.place(jax.tree.map(jax.numpy.copy, study.states))
    digests, figures = [], []
    program.prepare(len(asked) + 7, asked[0])  # of another round: it is not taken for this one's
    for number, cohort in enumerate(asked, 1):
        outcome = program.round(server, states, number, cohort)
        server, states = outcome.server, outcome.states
        if number < len(asked):
            program.prepare(number + 1, asked[number])
        digests.append(trees.digest_hex(outcome.digest))
        figures.append(jax.device_get(outcome.metrics))
    look = program.look(program.send(server), states, len(asked) + 1)
    return digests, jax.device_get((figures, states, look, server))


def held_against(method, rule, plan, rows):
    study, program = resident_and_streamed(method, rule, PLANS[plan], rows)
    asked = [np.arange(len(SIZES), dtype=np.int32), *cohorts(study.world, ROUNDS - 1)]
    digests, others = rounds_of(study.program, study, asked)
    mine, found = rounds_of(program, study, asked)
    if PLANS[plan] == Plan():
        assert mine == digests
        jax.tree.map(np.testing.assert_array_equal, found, others)
    else:
        near = partial(np.testing.assert_allclose, rtol=1e-6, atol=2e-5)  # rtol: of sums in the hundreds
        jax.tree.map(near, found, others)
    compiled = [program._pack, program._ends, program._looks, program._look_ends, *program._begins, *program._steps]
    assert max(one._cache_size() for one in compiled) <= 1, "compiled more than once"
    return program


def test_one_after_the_other_gives_the_same_bits():
    program = held_against(*IN_SHORT[0])
    units = program.blocks.units(np.arange(len(SIZES), dtype=np.int32), Plan())
    assert {unit.whole for unit in units} == {True, False} and max(len(unit.sites[0]) for unit in units) > 1


@pytest.mark.soak
def test_streams_and_lanes_give_the_same_but_for_rounding():
    program = held_against(*IN_SHORT[1])
    units = program.blocks.units(np.arange(len(SIZES), dtype=np.int32), PLANS["both"])
    assert {unit.whole for unit in units} == {True, False}


@pytest.mark.soak
@pytest.mark.parametrize("case", EVERY, ids=lambda case: "-".join(map(str, case)))
def test_every_method_rule_plan_and_block(case):
    held_against(*case)


@pytest.mark.parametrize(
    "local",
    [LOCAL, pytest.param(LOCAL._replace(steps=5, lasting=True), marks=pytest.mark.soak)],
    ids=["epochs", "lasting"],
)
def test_a_worker_sends_the_same_bits(local):
    everyone, fed = sites(), federated("scaffold")
    whole = start(fed, everyone, Plan(), local, MODEL)
    for name in ("site-2", "site-5", "site-8"):  # rows of both kinds, and of one alone
        worker_sends_the_same(whole, everyone[name], name, local)


def worker_sends_the_same(whole, site, name, local):
    fed, template = whole.federated, trees.shapes(whole.weights)
    count, state, sent = len(SIZES), whole.federated.enrol(whole.weights), []
    for blocks in (False, True):
        world = build_world({name: site}, np.float32, blocks)
        given = fed, template, world, local, Plan(), 1, 0, count, 16
        program = Streamed(2 * 16 * ROW, *given) if blocks else type(whole.program)(*given)
        sent.append(jax.device_get(program.local_round(program.send(whole.server), state, 3, 2)))
    jax.tree.map(np.testing.assert_array_equal, *sent)


def test_a_stream_has_room_for_a_batch_however_its_part_is_cut():
    """Of two streams each part begins at a multiple of 64 rows, unless a batch would not fit then."""
    for batch, rows in ((1500, 1500), (500, 1472), (8, 1472)):
        local, plan = LOCAL._replace(batch_size=batch), Plan(2, 1)
        whole = start(federated(), make_sites((2000, 2000), 0), plan, local, MODEL)
        world = build_world(make_sites((2000, 2000), 0), np.float32, streamed=True)
        program = Streamed(2 * 1500 * ROW, whole.federated, trees.shapes(whole.weights), world, local, plan)
        assert program.blocks.rows_each == rows


def test_no_more_than_two_blocks_are_on_a_device():
    """The third is loaded when the first is done with, while the second is worked on."""
    told = []

    class Done:
        def __init__(self, k):
            self.k = k

        def block_until_ready(self):
            told.append(f"free {self.k}")
            return self

    _, program = resident_and_streamed("fedavg", "mean", Plan(), 16)

    def job(k):
        def load():
            program.blocks._room_for(1)
            told.append(f"load {k}")
            return "block"

        return load, lambda held, block: told.append(f"run {k}") or Done(k)

    program._go(map(job, range(4)), streamed._Held((), (), (), (), 0))  # pyright: ignore[reportArgumentType]
    assert told == ["load 0", "run 0", "load 1", "run 1", "free 0", "load 2", "run 2", "free 1", "load 3", "run 3"]


def test_no_block_is_held_when_the_next_is_loaded_but_by_the_device():
    study, program = resident_and_streamed("fedavg", "mean", Plan(), 16)
    there, most = [], 0
    real = Streamed._sent_over

    def counted(self, block):
        nonlocal most
        most = max(most, sum(one() is not None for one in there))
        sent = real(self, block)
        there.append(weakref.ref(jax.tree.leaves(sent.rows)[0]))
        return sent

    with mock.patch.object(Streamed, "_sent_over", counted):
        rounds_of(program, study, [np.arange(len(SIZES), dtype=np.int32)] * 3)
    assert len(there) > 20 and most == 0  # what runs is held by the device alone


# ---- through the door ------------------------------------------------------------------------------------------------

TASK = lr.Task(models.mlp(hidden=(8,)), optax.sigmoid_binary_cross_entropy, (lr.auroc,))
COLUMNS = [f"c{i}" for i in range(300)]


@pytest.fixture(scope="module")
def arrays():
    """name -> (x, y); 3.6 MiB."""
    draw = np.random.default_rng(0)
    truth = draw.normal(size=len(COLUMNS))
    found = {}
    for name, rows in {"a": 700, "b": 2000, "c": 300, "d": 40}.items():
        x = draw.normal(size=(rows, len(COLUMNS))).astype(np.float32)
        found[name] = x, (x @ truth + draw.normal(size=rows) > 0).astype(np.float32)
    return found


def trained(given, workdir=None, **engine):
    engine = lr.Engine(plan="sequential", **engine)
    return lr.simulate(TASK, sites=given, rounds=2, engine=engine, references=("pooled",), workdir=workdir)


@pytest.fixture(scope="module")
def in_memory(arrays):
    return trained(arrays)


def same_as(run, other):
    assert run.weights_sha256 == other.weights_sha256
    assert run.result["evaluation"] == other.result["evaluation"]


def on_disk(kind, arrays, folder):
    for name, (x, y) in arrays.items():
        if kind == "npy":
            np.save(folder / f"{name}.npy", x)
            yield name, (np.load(folder / f"{name}.npy", mmap_mode="r"), y)
        elif kind == "zarr":
            import zarr

            packed = zarr.open_array(folder / f"{name}.zarr", mode="w", shape=x.shape, chunks=(64, 50), dtype="float32")
            packed[:] = x
            yield name, (packed, y)
        elif kind == "hdf5":
            import h5py

            with h5py.File(folder / f"{name}.h5", "w") as file:
                file.create_dataset("x", data=x.astype(np.float64), chunks=(16, 50), compression="gzip")
            yield name, (h5py.File(folder / f"{name}.h5")["x"], y)
        else:
            import pandas as pd

            table = pd.DataFrame(dict(zip(COLUMNS, x.T, strict=True)) | {"died": y})
            table.to_parquet(folder / f"{name}.parquet", row_group_size=128)
            yield name, lr.parquet(folder / f"{name}.parquet", COLUMNS, "died")


def test_rows_that_do_not_fit_give_the_same_study(arrays, in_memory):
    seen = []
    real = streamed.Streamed.__init__
    with mock.patch.object(
        Streamed,
        "__init__",
        lambda self, room, *given, **named: (seen.append(room), real(self, room, *given, **named))[1],
    ):
        same_as(trained(arrays, rows_mib=1), in_memory)
    assert seen == [2**20, 2**20], "the study and its reference did not come in blocks"


@pytest.mark.parametrize(
    "kind", ["parquet", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("zarr", "hdf5"))]
)
def test_rows_on_the_disk_give_the_same_study(kind, arrays, in_memory, tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    given = dict(on_disk(kind, arrays, tmp_path))
    same_as(trained(given, rows_mib=1, scratch=str(scratch)), in_memory)
    assert not [*scratch.iterdir()], "rows were left in a file"


def test_a_run_goes_on_with_rows_on_the_disk(arrays, in_memory, tmp_path):
    given = dict(on_disk("npy", arrays, tmp_path))

    def stop(event):
        if event.kind == "round_closed" and event.round == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lr.simulate(
            TASK, sites=given, rounds=2, engine=lr.Engine(plan="sequential"), references=("pooled",),
            workdir=tmp_path / "run", on_event=stop,
        )  # fmt: skip
    same_as(trained(arrays, tmp_path / "run", rows_mib=1), in_memory)  # they are the same rows, wherever they lie


def test_what_is_streamed_by_itself():
    data = sites()
    assert not is_streamed(world_of(lr.Engine(), data, np.float32))
    assert room_of(lr.Engine(rows_mib=3)) == 3 * 2**20
    with mock.patch.object(streamed, "room_of", lambda engine: 1):
        assert is_streamed(world_of(lr.Engine(), data, np.float32))


def test_a_model_predicts_for_rows_on_the_disk(in_memory, arrays, tmp_path):
    x = arrays["b"][0]
    told = in_memory.model.predict(x)
    for kind in ("npy", "hdf5", "parquet"):
        given = dict(on_disk(kind, {"b": arrays["b"]}, tmp_path))["b"][0]
        np.testing.assert_array_equal(in_memory.model.predict(given), told)


def test_the_digest_of_rows_is_theirs_wherever_they_lie():
    data = sites()
    assert world_sha256(build_world(data)) == world_sha256(build_world(data, np.float32, True))
    name = next(iter(data))
    data[name].rows["x"][data[name].split == VALID] += 1
    assert world_sha256(build_world(data)) != world_sha256(build_world(sites(), np.float32, True))


def test_what_is_wrong_is_said_in_a_line(arrays, tmp_path):
    x, y = arrays["c"]
    bad = np.lib.format.open_memmap(tmp_path / "bad.npy", "w+", np.float32, x.shape)
    bad[:] = x
    bad[217, 4] = np.nan
    with pytest.raises(DataError, match=r"^site 'c': expected finite numbers in x, got NaN or infinity in row 217$"):
        trained({"c": (bad, y)})
    with pytest.raises(ConfigError, match=r"engine.rows_mib: expected at least 1, got 0"):
        trained({"c": (x, y)}, rows_mib=0)
    import zarr

    packed = zarr.open_array(tmp_path / "x.zarr", mode="w", shape=x.shape, chunks=(64, 50), dtype="float32")
    with pytest.raises(StorageError, match=r"^engine.scratch: expected a folder, got none at .*nowhere$"):
        trained({"c": (packed, y)}, scratch=str(tmp_path / "nowhere"))
