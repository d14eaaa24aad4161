"""A run that is stopped anywhere goes on to the same weights; a folder that is not its own is refused in one line."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3

import jax
import numpy as np
import optax
import pytest

import learner_jax as lr
from learner_jax.data.sites import SiteData
from learner_jax.engines.keeper import Keeper
from learner_jax.errors import StudyError
from tests.algorithms.studies import make_sites

ROUNDS = 6
TASK = lr.Task(lr.mlp(hidden=(4,)), optax.sigmoid_binary_cross_entropy, (lr.brier,))
OTHER_LOSS = TASK._replace(loss=lambda output, target: 2.0 * optax.sigmoid_binary_cross_entropy(output, target))
SETTINGS = {
    "algorithm": lr.scaffold(local_lr=0.1),
    "rounds": ROUNDS,
    "batch_size": 8,
    "cohort": 3,
    "seed": 4,
    "references": (),
    "engine": lr.Engine(plan="sequential"),
}
SITES = make_sites((20, 17, 3, 40, 1), 3)


class Stopped(Exception):
    pass


def stop_at(kind: str, number: int):
    def observer(event):
        if (event.kind, event.round) == (kind, number):
            raise Stopped(kind)

    return observer


def run(folder=None, sites=SITES, on_event=lambda event: None, task=TASK, **fields):
    return lr.simulate(task, sites=sites, workdir=folder, on_event=on_event, **{**SETTINGS, **fields})


@pytest.fixture(scope="module")
def undisturbed():
    return run()


def same(one, other):
    assert one.weights_sha256 == other.weights_sha256
    jax.tree.map(np.testing.assert_array_equal, one.model.weights, other.model.weights)  # of the best round
    assert one.result["best_round"] == other.result["best_round"]
    figures = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in found.result["curve"]] for found in (one, other)
    ]
    assert figures[0] == figures[1]


def test_steps_without_their_journal_are_not_gone_on_with(workdir):
    run(workdir, rounds=3)
    for path in workdir.glob("journal.sqlite*"):
        path.unlink()
    (workdir / "result.json").unlink()
    with pytest.raises(StudyError, match=r"expected the figures of rounds 1 to 3 .*, got those of 0: "):
        run(workdir, rounds=3)


def test_a_run_of_an_earlier_version_whose_journal_is_ahead_of_its_steps_is_gone_on_with(workdir, undisturbed):
    """Its figures lie in its steps, and its last rounds are run again."""
    with pytest.raises(Stopped):
        run(workdir, on_event=stop_at("round_open", 5), checkpoint=lr.Checkpoint(wait=True))
    for number in (3, 4):
        shutil.rmtree(workdir / "checkpoints" / str(number), ignore_errors=True)
    base = sqlite3.connect(workdir / "journal.sqlite")
    told = [json.loads(json.loads(body)["figures"]) for (body,) in base.execute(
        "SELECT body FROM rows WHERE kind = 'measured' ORDER BY round")]  # fmt: skip
    base.execute("DROP TRIGGER rows_last")
    base.execute("DELETE FROM rows WHERE kind = 'measured'")
    base.commit()
    base.close()
    (step,) = [path for path in (workdir / "checkpoints").iterdir() if path.name == "2"]
    about = json.loads((step / "step.json").read_text())["about"]
    about["meta"]["curve"] = [told[0]["row"] | told[1]["before"], told[1]["row"]]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    (step / "step.json").write_text(json.dumps({"about": about, "sha256": digest}))
    with pytest.raises(Stopped):
        run(workdir, on_event=stop_at("round_open", 6), checkpoint=lr.Checkpoint(wait=True))
    same(run(workdir), undisturbed)


def test_stopped_again_and_again_it_ends_in_the_same_weights(workdir, undisturbed):
    resumed = []
    for kind, number in (("round_open", 1), ("round_closed", 2), ("round_open", 4), ("round_closed", 6)):
        with pytest.raises(Stopped):
            run(workdir, on_event=stop_at(kind, number))
    on = lambda event: resumed.append(event) if event.kind == "resumed" else None  # noqa: E731
    same(run(workdir, on_event=on), undisturbed)
    (event,) = resumed
    assert 2 <= event.round <= 6  # a round that ends while the one before is being saved has no step of its own
    assert undisturbed.result["best_round"] is not None
    again = run(workdir, on_event=resumed.append)  # finished: nothing to do, and said so
    assert again.weights_sha256 == undisturbed.weights_sha256
    assert any("nothing to do" in str(event.data.get("text")) for event in resumed)
    with pytest.raises(lr.LearnerError, match=r"holds another finished run .*; name a new folder"):
        run(workdir, task=OTHER_LOSS)


def test_killed_just_after_a_step_no_round_is_missing_from_the_lines(workdir, monkeypatch):
    step = Keeper.step

    def killed(self, number, *more, **how):
        saved = step(self, number, *more, **how)
        if number == 3:
            raise Stopped
        return saved

    monkeypatch.setattr(Keeper, "step", killed)
    with pytest.raises(Stopped):
        run(workdir, checkpoint=lr.Checkpoint(wait=True))
    monkeypatch.undo()
    run(workdir, checkpoint=lr.Checkpoint(wait=True))
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert any(line["event"] == "resumed" and line["round"] == 3 for line in lines)
    assert [line["round"] for line in lines if line["event"] == "round_closed"] == list(range(1, ROUNDS + 1))


def test_a_corrupt_step_is_passed_over_with_a_note(workdir, undisturbed):
    with pytest.raises(Stopped):
        run(workdir, on_event=stop_at("round_open", 5), checkpoint=lr.Checkpoint(wait=True))
    steps = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert steps[-1] == 4
    newest = workdir / "checkpoints" / "4"
    largest = max((path for path in newest.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    events = []
    same(run(workdir, on_event=events.append), undisturbed)
    (note,) = [event.data["text"] for event in events if event.kind == "note"]
    assert "passed over" in note
    assert "\n" not in note
    assert [event.round for event in events if event.kind == "resumed"] == [3]


def test_other_settings_losses_rows_or_models_in_the_same_folder_are_refused_in_one_line(workdir):
    with pytest.raises(Stopped):
        run(workdir, on_event=stop_at("round_open", 3), checkpoint=lr.Checkpoint(wait=True))

    def refused(match, sites=SITES, task=TASK, **fields):
        with pytest.raises(lr.LearnerError, match=match) as error:
            lr.simulate(task, sites=sites, workdir=workdir, **{**SETTINGS, **fields})
        assert "\n" not in str(error.value)
        assert "name a new folder" in str(error.value)

    refused("is of this study with other settings", algorithm=lr.scaffold(local_lr=0.2))
    refused("is of this study with other settings", task=OTHER_LOSS)
    refused("is of this study with other settings", task=TASK._replace(metrics=(lr.brier, lr.accuracy)))
    changed = {**SITES, "site-1": SITES["site-1"]._replace(rows={**SITES["site-1"].rows})}
    changed["site-1"].rows["x"] = changed["site-1"].rows["x"].copy()
    changed["site-1"].rows["x"][0, 0] += 1
    refused("expected the rows that step 2 in .* was trained on, got others", changed)
    refused("expected the rows that step 2", {**SITES, "another": SITES["site-0"]})
    refused("expected step 2 in .* to be of this model", task=TASK._replace(model=lr.mlp(hidden=(5,))))
    refused("going on with it was not asked for", resume=False)


def test_rows_that_change_before_the_first_step_are_seen_by_the_journal(workdir):
    """No step is left, but the journal knows what round 1 gave."""
    with pytest.raises(Stopped):
        run(workdir, on_event=stop_at("round_closed", 1))
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(lr.LearnerError, match=r"expected round 1 to end in state .* other data"):
        run(workdir, {name: site._replace(rows={**site.rows, "x": site.rows["x"] + 1}) for name, site in SITES.items()})


def test_without_validation_rows_the_last_round_is_kept_also_when_resumed(workdir):
    sites = {name: site._replace(split=np.zeros_like(site.split)) for name, site in SITES.items()}
    assert isinstance(sites["site-0"], SiteData)
    alone = run(None, sites)
    with pytest.raises(Stopped):
        run(workdir, sites, stop_at("round_closed", 3))
    same(run(workdir, sites), alone)


BY_SCRIPT: dict[float, float] = {}


def by_script(sums):
    """A model's score: of the common start and of the first three rounds as told here, and ever better after that."""
    told = (0.9, 0.2, 0.3, 0.1)
    number = len(BY_SCRIPT)
    return BY_SCRIPT.setdefault(float(sums["sum"]), told[number] if number < len(told) else 0.1 / number)


def test_a_run_that_was_out_of_patience_stays_ended(tmp_path, monkeypatch):
    """Stopped between the last look, which makes the last round the best, and the result."""
    from learner_jax.engines import outcome

    BY_SCRIPT.clear()
    task = TASK._replace(metrics=(lr.brier._replace(value=by_script),))
    fields = {"patience": 1, "rounds": 12, "target": "valid/brier", "task": task}
    whole = run(**fields)
    assert whole.result["best_round"] == len(whole.result["curve"]) == 3
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(outcome, "result", lambda *_: (_ for _ in ()).throw(Stopped("killed")))
        run(tmp_path, **fields)
    same(run(tmp_path, **fields), whole)
