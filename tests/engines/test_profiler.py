"""Profiles: every phase where it belongs, all of them the whole, and why a round was compiled again."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax import spans
from learner_jax.cli import doors
from learner_jax.engines import device_trace, keeper, profiler, simulator
from learner_jax.errors import ConfigError, CorruptError
from learner_jax.events import Event
from learner_jax.models import logistic
from learner_jax.reports import profile as reports
from learner_jax.specs import Engine

LATE = 0.2
ROUNDS = "3:5"


def sites() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(900, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    return {"a": (x[:500], y[:500]), "b": (x[500:], y[500:])}


def run(workdir: Path | None, loss=optax.sigmoid_binary_cross_entropy, **fields) -> lr.Run:
    task = lr.Task(logistic(), loss, (lr.auroc,))
    asked = {"rounds": 5, "batch_size": 64, "algorithm": lr.fedavg(local_lr=0.1), "references": (), **fields}
    return lr.simulate(task, sites=sites(), workdir=workdir, target="valid/auroc", **asked)


def found(workdir: Path) -> dict:
    return json.loads((workdir / "profile" / "profile.json").read_text())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> tuple[lr.Run, dict]:
    folder = tmp_path_factory.mktemp("plain") / "run"
    return run(folder, profile=ROUNDS), found(folder)


def test_phases_add_up_to_the_rounds_and_the_weights_are_those_of_a_run_that_nobody_looks_at(plain):
    profiled, told = plain
    assert told["rounds"] == [3, 4, 5] and len(told["wall_s"]) == 3
    for at, wall in enumerate(told["wall_s"]):
        parts = sum(row[at] for row in told["phases_s"].values())
        assert parts <= wall * 1.001
        assert parts + told["unnamed_s"][at] == pytest.approx(wall)
    # a phase without a span is missing in each round; that another process took the core, in some
    assert min(one / wall for one, wall in zip(told["unnamed_s"], told["wall_s"], strict=True)) <= 0.05
    assert {"plan", "step", "aggregate", "server", "evaluate", "checkpoint", "journal"} <= set(told["phases_s"])
    assert set(told["phases_s"]) <= set(spans.PHASES)
    assert told["amounts"][0]["steps"] == told["step"]["n"] / 3
    assert told["cost"]["flops_a_step"] >= 2 * 64 * 3 and 0 < told["cost"]["mfu"] < 1
    assert profiled.workdir is not None
    written = [path.name for path in (profiled.workdir / "profile").rglob("*.*") if path.is_file()]
    assert any(name.endswith(".xplane.pb") for name in written)
    drawn = json.loads(gzip.decompress((profiled.workdir / "profile" / "perfetto.json.gz").read_bytes()))["traceEvents"]
    assert {"step", "evaluate", "checkpoint", "round 4"} <= {event["name"] for event in drawn}
    within = [event["dur"] for event in drawn if event["name"] == "step" and event["pid"] == 1]
    assert 0 < sum(within) / 1e6 < sum(told["wall_s"])
    assert profiled.weights_sha256 == run(None).weights_sha256
    assert not spans.listening()


def slowly(function):
    def late(*given, **named):
        time.sleep(LATE)
        return function(*given, **named)

    return late


WHERE = {
    "plan": (simulator.plans, "cohort"),
    "evaluate": (simulator, "values"),
    "journal": (keeper.Keeper, "commit"),
    "checkpoint": (keeper.Steps, "save"),
    "tell": (simulator, "_closed"),
}


@pytest.mark.parametrize("phase", WHERE)
def test_what_comes_late_in_one_phase_is_in_its_row_and_in_no_other(phase, plain, tmp_path, monkeypatch):
    place, name = WHERE[phase]
    monkeypatch.setattr(place, name, slowly(getattr(place, name)))
    run(tmp_path / "run", profile=ROUNDS)
    only_that_row_moved(phase, plain[1], found(tmp_path / "run"))


def only_that_row_moved(phase: str, before: dict, now: dict, by: float = LATE) -> None:
    def middle(told: dict, name: str) -> float:
        return float(np.median(told["phases_s"].get(name, [0.0])))

    moved = {name: middle(now, name) - middle(before, name) for name in spans.PHASES}
    moved["unnamed"] = float(np.median(now["unnamed_s"]) - np.median(before["unnamed_s"]))
    assert by * 0.95 <= moved.pop(phase) <= by * 2.9, (phase, moved)  # a round's step and its best model are two
    assert all(abs(other) < by / 2 for other in moved.values()), moved


def test_a_step_that_takes_long_is_in_the_row_of_steps(plain, tmp_path):
    """On the device: a loss that sleeps, once in a step."""

    def late(logits):
        time.sleep(LATE)
        return logits

    def loss(logits, y):
        return optax.sigmoid_binary_cross_entropy(logits, y) + 0 * jax.lax.stop_gradient(
            jax.pure_callback(late, jax.ShapeDtypeStruct(logits.shape, logits.dtype), jax.lax.stop_gradient(logits))
        )

    run(tmp_path / "run", loss, profile="2:3", steps=1, rounds=3, engine=Engine(plan="sequential"))
    told = found(tmp_path / "run")
    steps, watched = np.median(told["phases_s"]["step"]), np.median(told["phases_s"]["evaluate"])
    assert 2 * LATE * 0.95 <= steps <= 2 * LATE * 1.9, told["phases_s"]  # two sites, a step each
    assert LATE * 0.95 <= told["step"]["p50_s"] <= LATE * 1.9
    assert watched >= 2 * LATE * 0.95, "the watch asks the same loss"
    others = {name: np.median(took) for name, took in told["phases_s"].items() if name not in ("step", "evaluate")}
    assert max(others.values()) < LATE, others


def test_why_a_round_was_compiled_again_is_said_by_the_arguments_name(tmp_path):
    program = jax.jit(lambda rows, batches: rows.sum() + batches.sum())
    cost = lambda: {"flops": 1.0, "bytes": 1.0}  # noqa: E731
    listener = profiler.Profiler(range(1, 5), tmp_path / "profile", "simulation")
    with listener.listening():
        for number, steps in enumerate((4, 4, 5, 4), 1):
            arguments = {"rows": jnp.ones(3), "batches": jnp.ones((steps, 2), jnp.int32)}
            with spans.span("round", number):
                spans.called(lambda a=arguments: spans.Called("a round", program, a, lambda: program, cost))
                spans.counted(steps=steps, rows=steps, places=steps, turns=steps)
                with spans.span("compute"):
                    program(*arguments.values()).block_until_ready()
    told = json.loads((tmp_path / "profile" / "profile.json").read_text())
    (cause,) = told["compile"]["causes"]  # going back to shapes that were there before compiles nothing
    assert (cause["round"], cause["argument"]) == (3, "batches")
    assert cause["was"].startswith("int32[4,2]") and cause["is"].startswith("int32[5,2]")
    assert told["phases_s"]["compile"][2] > 0 and told["phases_s"]["compile"][1] == 0
    assert "Round 3 was compiled again: batches was int32[4,2]" in reports.text(told)


def test_who_was_waited_for_is_named_also_if_it_never_came(tmp_path):
    listener = profiler.Profiler(range(1, 4), tmp_path / "profile", "coordinator")
    with listener.listening():
        for number in (1, 2, 3):
            with spans.span("round", number), spans.span("wait"):
                for site, late in (("near", 0.0), ("far", 0.05)):
                    time.sleep(late)
                    listener.heard(Event("site_done", "s", number, site, {"accepted": 1}))
                gone = ["away"] if number == 3 else []
                listener.heard(Event("round_closed", "s", number, data={"lost": gone}))
    told = json.loads((tmp_path / "profile" / "profile.json").read_text())
    assert told["sites"]["far"]["last"] == 2 and told["sites"]["near"]["last"] == 0
    assert told["sites"]["away"] == {"answered_s": None, "last": 1, "lost": 1, "rounds": 1, "work_s": None}
    assert told["sites"]["far"]["answered_s"] >= 0.05
    assert [row["site"] for row in told["timeline"]] == ["far", "near"] * 2 + ["away", "far", "near"]
    assert "Waited for most often: far, the last in 2 of 3 rounds" in reports.text(told)


def test_time_within_is_not_counted_twice():
    assert device_trace.exclusive([(0, 10), (2, 5), (3, 4), (6, 7), (12, 13)]) == [6, 2, 1, 1, 1]


PROGRAM = """HloModule jit_f, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%body (p: f32[8]) -> f32[8] {
  %copy.1 = f32[8]{0} copy(%p)
  ROOT %tanh.2 = f32[8]{0} tanh(%copy.1), metadata={op_name="jit(f)/learner.boundary/while/body/learner.step/tanh"}
}

%cond (p.1: f32[8]) -> pred[] {
  ROOT %less.3 = pred[] compare(%p.1, %p.1), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %while.4 = f32[8]{0} while(%a), condition=%cond, body=%body, metadata={op_name="jit(f)/learner.boundary/while"}
  ROOT %copy.5 = f32[8]{0} copy(%while.4)
}
"""


def test_operations_without_a_name_have_that_of_their_loop():
    """Also in the text of a real program, where XLA adds copies of a loop's carry."""
    told = {"copy.1": "boundary", "tanh.2": "step", "less.3": "boundary", "while.4": "boundary"}
    assert device_trace.scopes_of(PROGRAM) == told

    def f(x, n):
        with jax.named_scope("learner.step"):
            return jax.lax.fori_loop(0, n, lambda i, pair: (pair[1], jnp.tanh(pair[0])), (x, x + 1))

    scopes = device_trace.scopes_of(jax.jit(f).lower(jnp.ones(8), 3).compile().as_text() or "")
    assert any("tanh" in name for name in scopes) and set(scopes.values()) == {"step"}


def test_a_step_ends_with_its_sites_loop_and_not_with_the_next_sites_first():
    def op(name: str, began: float, ended: float) -> device_trace.Op:
        return device_trace.Op(0, "jit_f", name, began * 1e9, ended * 1e9)

    scopes = {"dot": "step", "add": "step", "copy": "boundary"}
    ops = [op("dot", 0, 4), op("add", 5, 9), op("dot", 10, 14), op("add", 15, 18), op("copy", 18, 39),
           op("dot", 40, 44), op("add", 45, 50)]  # fmt: skip
    rounds = device_trace.Rounds({1: (0, 60e9)}, ops, [])
    told = device_trace.split(rounds, 1, {"jit_f": scopes}, 3)
    assert told.steps == pytest.approx([10, 8, 10])
    assert told.phases == pytest.approx({"step": 24, "boundary": 21}) and told.busy == pytest.approx({0: 45})


def test_profiles_side_by_side_say_what_changed_beyond_noise():
    def of(plan, step):
        walls = [a + b for a, b in zip(plan, step, strict=True)]
        return {"phases_s": {"plan": plan, "step": step}, "wall_s": walls}

    before = of([0.010, 0.011, 0.012, 0.011, 0.011], [0.1, 0.13, 0.12, 0.12, 0.12])
    now = of([0.021, 0.022, 0.020, 0.021, 0.021], [0.11, 0.14, 0.135, 0.135, 0.135])
    rows = {name: verdicts for name, _, verdicts in reports.changes([before, now, before])}
    assert rows["plan"] == ["10.0 ms more (x 1.91)", "within noise"] and rows["step"] == ["within noise"] * 2
    assert "run 3 beside run 1" in reports.compared([before, now, before])
    few = reports.changes([of([0.1] * 3, [0.1] * 3), of([0.9] * 3, [0.1] * 3)])
    assert few[0][2] == ["too few rounds to tell"]
    never = of([0.0, 0.0, 0.0, 0.0, 0.003], [0.1] * 5)  # a phase of one round in five
    assert reports.changes([never, now])[0][2] == ["21.0 ms more"]
    small = of([1e-5] * 5, [0.1] * 5), of([2e-5] * 5, [0.1] * 5)
    assert reports.changes(small)[0][2] == ["within noise"], "of no weight in the round"


@pytest.mark.parametrize("text", ["", "0", "5:3", "a:b", "3:", "1:2:3", "-1"])
def test_what_is_no_rounds_is_one_line(text):
    with pytest.raises(ConfigError, match="expected the first and the last round, such as 3:5"):
        spans.rounds_of(text)


def test_rounds_that_the_study_has_not_and_a_run_that_is_kept_nowhere(tmp_path):
    with pytest.raises(ConfigError, match="expected rounds up to 5, those of the study, got '4:6'"):
        run(tmp_path / "run", profile="4:6")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match="expected a run's folder"):
        run(None, profile="2")


@pytest.mark.parametrize("kind", ["round_open", "round_closed"])
def test_a_stopped_run_leaves_the_profile_of_what_was_run(kind, tmp_path):
    """Half of a round is none."""

    def stop(event: Event) -> None:
        if event.kind == kind and event.round == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", profile="3:5", on_event=stop)
    assert found(tmp_path / "run")["rounds"] == [3]


def test_a_trace_ends_with_the_rounds_where_the_last_one_is_not_run(tmp_path):
    """A study that ended early, and a process that has no part in the last round asked for."""
    states = []

    def look(event: Event) -> None:
        if event.kind in ("reference", "evaluation"):
            assert isinstance(spans._listener, profiler.Profiler)
            states.append(spans._listener._state)

    fields = {"patience": 1, "algorithm": lr.fedavg(local_lr=0.0), "references": ("pooled",)}
    run(tmp_path / "run", profile="2:5", on_event=look, **fields)
    assert found(tmp_path / "run")["rounds"][-1] < 5 and set(states) == {"traced"}
    listener = profiler.Profiler(range(3, 6), tmp_path / "profile", "a")
    with listener.listening():
        for number in (3, 4, 6):
            with spans.span("round", number):
                assert (listener._state == "tracing") == (number < 6)
    assert json.loads((tmp_path / "profile" / "profile.json").read_text())["rounds"] == [3, 4]


def test_references_have_no_part_in_the_last_rounds_figures(plain, tmp_path):
    run(tmp_path / "run", profile="5", references=("local_only", "pooled"))
    assert found(tmp_path / "run")["amounts"] == plain[1]["amounts"][-1:]


def test_lanes_have_steps_and_padding_of_their_own(tmp_path):
    run(tmp_path / "run", profile="2:3", engine=Engine(plan="lanes", lanes=2))
    told = found(tmp_path / "run")
    assert told["step"] is not None and told["step"]["n"] == sum(one["turns"] for one in told["amounts"])
    assert told["amounts"][0]["turns"] < told["amounts"][0]["steps"] and told["padding"] > 0.1


def test_what_goes_wrong_with_a_profile_is_a_line_and_ends_no_run(tmp_path, monkeypatch):
    def full(*ignored):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jax.profiler, "stop_trace", full)
    told: list[Event] = []
    done = run(tmp_path / "run", profile="3:4", on_event=told.append)
    monkeypatch.undo()
    jax.profiler.stop_trace()
    assert done.weights_sha256 == run(None).weights_sha256
    assert [event.data["text"] for event in told if "no profile" in str(event.data.get("text"))] == [
        "no profile: OSError: [Errno 28] No space left on device"
    ]
    assert not (tmp_path / "run" / "profile" / "profile.json").exists()


def test_a_profile_of_before_is_not_taken_for_that_of_now(tmp_path):
    run(tmp_path / "run", profile="1:2")
    assert doors.profile_table(tmp_path / "run", "1:2") and doors.profile_table(tmp_path / "run", "4:5") is None
    (tmp_path / "run" / "profile" / "profile.json").write_text("{")
    with pytest.raises(CorruptError):
        doors.profile_table(tmp_path / "run", "1:2")
