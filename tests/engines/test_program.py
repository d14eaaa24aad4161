"""One round, two engines: a simulator, and workers with worlds of one site whose wires meet in a Reducer."""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from unittest import mock

import jax
import jax.monitoring
import numpy as np
import optax
import pytest

from learner_jax import aggregators, algorithms, leaves, trees
from learner_jax.engines import reducer
from learner_jax.engines.parts import objective, watching
from learner_jax.engines.program import Plan, Program, wire_shape
from learner_jax.engines.reducer import Final, Reducer, Sender
from learner_jax.engines.world import Local, build_world
from learner_jax.federate import federate
from learner_jax.models import logistic, mlp
from learner_jax.specs import Spec
from learner_jax.types import Algorithm, Model
from tests.algorithms.studies import cohorts, flat, furthest, learned, make_sites, rounds_of, start

ROUNDS = 20
ROWS = 24  # of each site, so that workers share compiled programs; training rows differ
SIZES = (20, 17, 3, 7, 1)
LOCAL = Local(batch_size=8, epochs=1, steps=None, seed=11)


class Case(NamedTuple):
    model: Model
    algorithm: Algorithm

    def start(self, rule, plan=Plan()):
        watch = watching(self.model, optax.sigmoid_binary_cross_entropy, ())
        federated = federate(self.algorithm, RULES[rule](), watch=watch)
        return start(federated, sites(), plan, LOCAL, self.model)


DEEP, FLAT = mlp(hidden=(6,), dropout=0.25), logistic()  # with dropout the keys of batches count
DEEP_LOSS, FLAT_LOSS = (objective(model, optax.sigmoid_binary_cross_entropy) for model in (DEEP, FLAT))
METHODS = {
    "fedavg": Case(DEEP, algorithms.fedavg(DEEP_LOSS, local_lr=0.02, local="adam")),
    "fedadam": Case(FLAT, algorithms.fedadam(FLAT_LOSS, server_lr=0.03)),
    "scaffold": Case(DEEP, algorithms.scaffold(DEEP_LOSS)),
    "fedprox": Case(FLAT, algorithms.fedprox(FLAT_LOSS, mu=0.1)),
}
RULES = {"mean": aggregators.mean, "median": aggregators.median}


def sites():
    return make_sites(SIZES, [ROWS - rows for rows in SIZES])


class Federation:
    """Workers and a coordinator without what lies between them but the bytes."""

    def __init__(self, study):
        self.study, everyone = study, sites()
        template, count = trees.shapes(study.weights), len(study.world.names)
        self.workers = [
            Program(study.federated, template, build_world({name: everyone[name]}), LOCAL, size=1, enrolled=count)
            for name in study.world.names
        ]
        most = max(worker._capacity for worker in self.workers)
        for worker in self.workers:  # they differ in their data alone, which are arguments: one compiled pass for all
            worker._local, worker._capacity = self.workers[0]._local, most
        self.send = jax.jit(study.federated.send)
        self.wire = wire_shape(study.federated, template, trees.shapes(study.world.rows), LOCAL)
        self.reducer = Reducer(study.federated, template, self.wire, 0, LOCAL.seed, count, count)
        with mock.patch.object(reducer, "_LARGE", 0):  # as a wire of many megabytes is added
            self.leafwise = Reducer(study.federated, template, self.wire, 0, LOCAL.seed, count, count)

        self.restart()

    def restart(self):
        self.server = self.study.server
        self.states = [self.study.federated.enrol(self.study.weights) for _ in self.workers]

    def round(self, number, cohort, tamper=lambda place, wire: wire):
        """(digest, metrics) of a round; `tamper` is what a worker does to its wire before it sends it."""
        broadcast, wires = self.send(self.server), []
        for place in map(int, cohort):
            wire, self.states[place] = self.workers[place].local_round(
                broadcast, self.states[place], number, len(cohort)
            )
            sent = leaves.pack(trees.named_leaves(tamper(place, wire)))
            wires.append(trees.rebuild(self.wire, leaves.unpack(sent, trees.schema(self.wire))))
        about, streamed = (len(wires), number, len(cohort)), (iter(trees.named_leaves(wire).items()) for wire in wires)
        _, _, leafwise = self.leafwise(self.server, streamed, *about)
        self.server, metrics, digest = self.reducer(self.server, iter(wires), *about)
        assert trees.digest_hex(leafwise) == trees.digest_hex(digest), "other bits when it is added leaf by leaf"
        return trees.digest_hex(digest), metrics


def test_what_is_sent_is_the_servers_own_memory_where_it_is_the_same():
    for case in METHODS.values():
        study = case.start("mean")
        sent = Sender(study.federated, study.server)(study.server)
        whole = leaves.pack(trees.named_leaves(study.federated.send(study.server)))
        assert bytes(sent[:]) == whole and sent.sha256 == hashlib.sha256(whole).hexdigest()
        weights = jax.tree.leaves(study.server.learned)[0]
        own = {np.asarray(leaf).ctypes.data for leaf in jax.tree.leaves(study.server)}
        starts = {np.frombuffer(part, np.uint8).ctypes.data for part, _, _ in sent._parts}
        assert np.asarray(weights).ctypes.data in own and starts <= own


def test_the_final_model_is_that_of_a_site_that_has_just_enrolled():
    for case in METHODS.values():
        study = case.start("mean")
        federated, init = study.federated, mock.Mock(return_value=study.weights)
        final = Final(federated, init, trees.shapes(study.world.rows), study.server)
        init.reset_mock()
        expected = federated.model(federated.send(study.server), federated.enrol(study.weights))
        jax.tree.map(np.testing.assert_array_equal, final(study.server), expected)
        assert not init.called, "weights were made in vain"


@pytest.fixture(scope="module", params=[(method, rule) for method in METHODS for rule in RULES], ids="-".join)
def pair(request):
    """(study, federation) of one method and one rule, compiled once."""
    method, rule = request.param
    study = METHODS[method].start(rule)
    return study, Federation(study)


def test_simulator_and_workers_give_the_same_bits(pair):
    study, federation = pair
    asked = cohorts(study.world, ROUNDS)
    assert len({len(cohort) for cohort in asked}) > 3
    federation.restart()
    outcome = None
    for number, (cohort, outcome) in enumerate(zip(asked, rounds_of(study, asked), strict=True), 1):
        digest, metrics = federation.round(number, cohort)
        assert digest == trees.digest_hex(outcome.digest), f"round {number}, cohort {cohort}"
        for name, value in metrics.items():  # sums of losses: no part of the promise, so near is enough
            np.testing.assert_allclose(value, outcome.metrics[name], rtol=1e-5, err_msg=name)
    assert outcome is not None
    for place, state in enumerate(federation.states):
        jax.tree.map(np.testing.assert_array_equal, state, jax.tree.map(lambda leaf, s=place: leaf[s], outcome.states))
    assert furthest(flat(study.weights), learned(study, outcome.server)) > 0.01


def test_a_worker_that_scales_its_update_is_seen(pair):
    """The planted fault under which the test above must turn red: one part in ten thousand at one site of five."""
    study, federation = pair
    everyone = np.arange(len(SIZES), dtype=np.int32)
    honest = np.delete(everyone, 2)

    def tamper(place, wire):
        if place != 2:
            return wire
        return wire._replace(update=wire.update._replace(sum=trees.scale(1.0001, wire.update.sum)))

    federation.restart()
    first, second = rounds_of(study, [honest, everyone])
    assert federation.round(1, honest, tamper)[0] == trees.digest_hex(first.digest)
    assert federation.round(2, everyone, tamper)[0] != trees.digest_hex(second.digest)


def alike():
    """FedAvg in which every site weighs 1, whatever it has done: slots that only fill up a row of lanes must not."""
    base = METHODS["fedprox"].algorithm

    def finish(broadcast, site, carry):
        report, site = base.finish(broadcast, site, carry)
        return report._replace(weight=trees.scale(0, report.weight) + 1), site

    return Case(FLAT, base._replace(finish=finish))


@pytest.mark.parametrize(
    "method, rule, plans",
    [
        ("scaffold", "mean", [Plan(2, 1), Plan(2, 2)]),
        ("alike", "mean", [Plan(1, 3)]),
        ("fedadam", "median", [Plan(2, 2)]),
    ],
)
def test_streams_and_lanes_agree_with_one_stream(method, rule, plans):
    with jax.enable_x64(True):
        case = {**METHODS, "alike": alike()}[method]
        alone = case.start(rule)
        asked = cohorts(alone.world, ROUNDS)
        wanted = list(rounds_of(alone, asked))[-1]
        for plan in plans:
            study = case.start(rule, plan)
            *_, got = rounds_of(study, asked)
            assert furthest(learned(study, got.server), learned(alone, wanted.server)) < 1e-9, plan
            for a, b in zip(jax.tree.leaves(got.states), jax.tree.leaves(wanted.states), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
            for name, value in wanted.metrics.items():
                np.testing.assert_allclose(got.metrics[name], value, rtol=1e-9, err_msg=name)


@pytest.fixture
def compiled():
    """Seconds of each compilation from here on."""
    found = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("plan", [Plan(1, 1), Plan(2, 1)])
def test_nothing_compiles_after_round_two(compiled, plan):
    """1,000 sites of log-normal size, mean 20, and cohorts of 10 to 200 of them."""
    draw = np.random.default_rng(0)
    sizes = np.maximum(1, draw.lognormal(np.log(20) - 0.5, 1.0, 1000).astype(int))
    assert sizes.max() > 20 * np.median(sizes) / 2
    model = logistic()
    method = algorithms.scaffold(objective(model, optax.sigmoid_binary_cross_entropy))
    local = Local(batch_size=10, epochs=1, steps=None, seed=1)
    study = start(federate(method), make_sites(sizes.tolist(), 0), plan, local, model, size=200)
    server, states = study.server, study.states
    for number in range(1, 13):
        size = (10, 200, 57, 10, 200)[number] if number < 5 else int(draw.integers(10, 201))
        cohort = np.sort(draw.choice(1000, size, replace=False)).astype(np.int32)
        before = len(compiled)
        outcome = study.program.round(server, states, number, cohort)
        server, states = outcome.server, outcome.states
        jax.block_until_ready(server)
        assert number <= 2 or len(compiled) == before, f"round {number}, {size} sites"
    assert compiled


@pytest.mark.parametrize("plan", [Plan(1, 1), Plan(2, 1)])
@pytest.mark.parametrize("ahead", [(2, (0, 1, 3)), (3, (0, 1, 3)), (2, (0, 1, 4))])
def test_a_plan_that_was_made_ahead_changes_nothing(plan, ahead):
    """Neither that of this round nor one of another round or of other sites."""
    study, digests = METHODS["fedprox"].start("mean", plan), []
    cohort = np.array([0, 1, 3], np.int32)
    for made in (None, ahead):
        server, states = study.program.place(study.server), study.program.place(study.states)
        if made is not None:
            study.program.prepare(made[0], np.array(made[1], np.int32))
        digests.append(trees.digest_hex(study.program.round(server, states, 2, cohort).digest))
    assert digests[0] == digests[1]


def test_the_new_state_is_made_where_the_sum_lies():
    """A large model is there twice in the server's step, not three times."""
    for name, case in METHODS.items():
        study = case.start("mean")
        template, server = trees.shapes(study.weights), trees.shapes(study.server)
        wire = wire_shape(study.federated, template, trees.shapes(study.world.rows), LOCAL)
        made = Reducer(study.federated, template, wire, 0, LOCAL.seed, 3, 3)
        form, given, others = made.apart(server, jax.eval_shape(study.federated.lift, wire, template))
        compiled = made._step.lower(form, server, given, others, *map(np.int32, (1, 3, 1))).compile()
        in_place = compiled.memory_analysis()
        assert in_place is not None
        weights, spent = (
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(t)) for t in (template, given)
        )
        assert in_place.alias_size_in_bytes == spent >= weights, name


@pytest.mark.soak
@pytest.mark.parametrize("hidden", [(8,), (16,), (8, 17), (33,)], ids=str)
def test_simulator_and_workers_give_the_same_bits_whatever_the_shapes(hidden):
    """A compiler makes other instructions of a leaf of eight numbers than of one of seventeen."""
    model = mlp(hidden=hidden)
    loss = objective(model, optax.sigmoid_binary_cross_entropy)
    momentum = Spec("optimizers", "sgd", {"momentum": 0.9})
    for method in (
        algorithms.fedavg(loss), algorithms.fedavg(loss, local_lr=0.02, local="adam"),
        algorithms.fedavg(loss, server_lr=0.7, server=momentum), algorithms.fedadam(loss, server_lr=0.03),
        algorithms.fedyogi(loss, server_lr=0.03), algorithms.scaffold(loss), algorithms.scaffold(loss, local_lr=0.05),
        algorithms.fedprox(loss, mu=0.1),
    ):  # fmt: skip
        study = Case(model, method).start("mean")
        federation, server, states = Federation(study), study.server, study.states
        everyone = np.arange(len(study.world.names), dtype=np.int32)
        for number in range(1, 31):
            outcome = study.program.round(server, states, number, everyone)
            server, states = outcome.server, outcome.states
            digest, _ = federation.round(number, everyone)
            assert digest == trees.digest_hex(outcome.digest), f"{method}: round {number}"
