"""What a round costs beyond compute: a real coordinator, and eight sites that answer at once with bytes made before.

    python -m benchmarks.wire_rounds           one JSON line (2 minutes)
    python -m benchmarks.wire_rounds --quick   a few rounds: does it run; the times mean nothing

The coordinator is `engines.serving.serve` with a small perceptron: line, machine, journal, spool, sum, step and saving
the step, as in a run. A site is a process without jax: machine, line and outbox are real, its answers are prepared. So
a round is all that federating costs, on one machine and its one disk. Its parts are told by the engine's own events.
"""

from __future__ import annotations

import argparse
import base64
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from learner_jax.events import Event

GOAL_MS = 30.0
SITES = 8
WARM = 10
"""Rounds before the first that counts: compiling, and files that are new."""
PARTS = {
    "first_update_ms": ("round_open", "first_done"),
    "other_updates_ms": ("first_done", "last_done"),
    "close_and_add_ms": ("last_done", "round_closed"),
    "save_and_open_ms": ("round_closed", "next"),
}

Moment = tuple[float, float]
"""Seconds on the wall's clock, and of CPU time of the coordinator's process."""


def site(name: str, code: Path, answers: Path, folder: Path, durable: bool) -> None:
    """A site's process: joins, answers every Open at once, leaves at the end."""
    import secrets

    from learner_jax.network.drive import SiteDrive, SiteHandlers
    from learner_jax.network.enrol import membership
    from learner_jax.network.keys import load_or_make_keys
    from learner_jax.network.links import SiteLink
    from learner_jax.protocol import commands as c
    from learner_jax.protocol.site import SiteKeeper
    from learner_jax.storage.outbox import Outbox

    prepared = {at: (_bytes(data), schema, _bytes(state)) for at, (data, schema, state) in _read(answers).items()}
    member = membership(code.read_text(), name, folder)
    outbox = Outbox(folder / "outbox")
    keeper = SiteKeeper(member.study, name, incarnation=secrets.token_hex(8))

    began: list[float] = []

    def work(asked: c.Work) -> None:
        opened = asked.open
        if opened.phase == "train" and not began:
            began.append(time.process_time())
        number = min(opened.round, 1) if opened.phase == "look" else 0
        drive.post(c.Worked(opened.round, opened.phase, *prepared[f"{opened.phase}{number}"]))

    handlers = SiteHandlers(
        approve=lambda asked: c.Approved(asked.manifest_digest),
        work=work,
        write=outbox.put if durable else lambda entry, data, state: None,
        commit=(lambda entry: outbox.commit(entry.digest)) if durable else lambda entry: None,
        discard=lambda entry, reason: outbox.discard(),
        remember=outbox.see_epoch,
    )
    with SiteLink(member.address, member.server_public, load_or_make_keys(folder / "keys.json")) as link:
        drive = SiteDrive(link, keeper, handlers)
        drive.run()
    print(time.process_time() - began[0])
    if drive.finished is None or not drive.finished.ok:
        raise SystemExit(f"{name}: {drive.finished}")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def small(rounds: int) -> Any:
    """The readmission study with 8 diagnoses and a perceptron of 8 hidden units."""
    from learner_jax.specs import Data, Engine, Spec, Study, check

    return check(
        Study(
            name="rounds", task=Spec("tasks", "readmission", {"codes": 8, "valid_share": 0.4}),
            model=Spec("models", "mlp", {"hidden": (8,)}), algorithm=Spec("algorithms", "fedavg", {"local_lr": 0.05}),
            aggregator=Spec("aggregators", "mean"), rounds=rounds, batch_size=32, references=(),
            data=Data(source="diabetes130"), engine=Engine(plan="sequential"),
        )
    )  # fmt: skip


def prepare(parts: Any, folder: Path) -> dict[str, Any]:
    """What a site of the sample answers to each Open; eight such sites are alike."""
    import jax
    import numpy as np
    import pandas as pd

    from learner_jax import events, specs
    from learner_jax.data.samples import sample_path
    from learner_jax.engines.reducer import Sender
    from learner_jax.engines.site_study import SUMMARY_BYTES, SiteStudy
    from learner_jax.leaves import pack, schema_digest, schema_of, unpack
    from learner_jax.protocol.messages import Blob, Open
    from learner_jax.statistics import combine

    sample = pd.read_parquet(sample_path("diabetes130"))
    frame = sample.loc[sample["site"] == "h00"].drop(columns=["site", "weight"]).head(400)
    folder.mkdir()
    manifest = specs.manifest(parts.study).encode()
    one = SiteStudy(lambda study: parts, manifest, "h00", frame, folder, events.silent)

    def ask(number: int, phase: str, data: bytes = b"") -> Any:
        blob = Blob("0" * 64, len(data), "0" * 64)
        return one.work(Open(parts.study.name, 1, number, phase, 1, SITES, SITES, blob, {}), data, None)

    checklist = parts.task.checklist
    found = {"statistics0": ask(0, "statistics")}
    measured = unpack(found["statistics0"].data, schema_of(checklist.zero()))
    fitted = checklist.fit(combine([measured] * SITES))
    found["look0"] = ask(0, "look", json.dumps(fitted).encode())
    server = parts.federated.init(parts.init_weights(checklist.template(fitted)), jax.random.key(0))
    sent = Sender(parts.federated, server)(server)
    broadcast = bytes(sent[0 : len(sent)])
    found["train0"], found["look1"] = ask(1, "train", broadcast), ask(2, "look", broadcast)
    told = {at: [one.data, one.schema_digest, one.state] for at, one in found.items()}
    nothing = {"summary": np.frombuffer(b"{}".ljust(SUMMARY_BYTES), np.uint8)}
    told["finish0"] = [pack(nothing), schema_digest(schema_of(nothing)), b""]
    return {
        at: [base64.b64encode(data).decode(), schema, base64.b64encode(state).decode()]
        for at, (data, schema, state) in told.items()
    }


def moments(events: Sequence[tuple[Moment, Event]]) -> dict[int, dict[str, Moment]]:
    """When a round was opened, its first and last update accepted, and when it was closed; "next": the next opened."""
    out: dict[int, dict[str, Moment]] = {}
    for at, event in events:
        if event.round is None:
            continue
        seen = out.setdefault(event.round, {})
        if event.kind == "round_open":
            seen["round_open"] = at
            if event.round - 1 in out:
                out[event.round - 1]["next"] = at
        elif event.kind == "site_done" and "round_open" in seen:
            seen.setdefault("first_done", at)
            seen["last_done"] = at
        elif event.kind == "round_closed":
            seen["round_closed"] = at
    return out


def measure(rounds: int, durable: bool) -> dict[str, Any]:
    """One federation: milliseconds a round and its parts, of each round that counts."""
    from learner_jax.build import build
    from learner_jax.engines.serving import serve

    parts, events = build(small(rounds)), []
    names = tuple(f"s{number:02}" for number in range(SITES))
    started: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        answers = folder / "answers.json"
        answers.write_text(json.dumps(prepare(parts, folder / "one")))

        def invited(files: Mapping[str, Path], address: str) -> None:
            for name in names:
                about = [name, str(files[name]), str(answers), str(folder / name), "--durable" if durable else "--bare"]
                command = [sys.executable, "-m", "benchmarks.wire_rounds", "--site", *about]
                started.append(subprocess.Popen(command, cwd=common.ROOT, stdout=subprocess.PIPE, text=True))

        def check() -> None:
            failed = [process.args for process in started if process.poll()]
            if failed:
                raise SystemExit(f"a site's process failed: {failed}")

        try:
            tell = functools.partial(_note, events)
            result = serve(parts, names, folder / "run", tell, "127.0.0.1", 0, invited, check).result
            told = [process.communicate(timeout=20)[0] for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
    took_part = [row for row in result["curve"] if len(row["sites"]) == SITES]
    if len(took_part) != rounds:
        raise SystemExit(f"expected {rounds} rounds of {SITES} sites, got {len(took_part)}")
    found = {number: seen for number, seen in moments(events).items() if number > min(WARM, rounds // 3)}
    whole = [seen for seen in found.values() if len(seen) == 5]
    out = {name: [1000 * (one[to][0] - one[since][0]) for one in whole] for name, (since, to) in PARTS.items()}
    for place, name in enumerate(("round_ms", "coordinator_cpu_ms")):
        out[name] = [1000 * (one["next"][place] - one["round_open"][place]) for one in whole]
    out["sites_cpu_ms"] = [1000 * sum(map(float, told)) / rounds]
    return {"values": out, "bytes_up": took_part[-1]["bytes_up"], "sha256": result["weights_sha256"]}


def _note(events: list[tuple[Moment, Event]], event: Event) -> None:
    events.append(((time.perf_counter(), time.process_time()), event))


def run(rounds: int, repeats: int) -> dict[str, Any]:
    """Federations with and without the sites' outboxes on the disk, in turn."""
    found: dict[str, list[dict[str, Any]]] = {"durable": [], "no_outbox": []}
    for _ in range(repeats):
        for name, runs in found.items():
            runs.append(measure(rounds, name == "durable"))
    if len({one["sha256"] for runs in found.values() for one in runs}) != 1:
        raise SystemExit("expected the same weights of every federation, got others")
    out: dict[str, Any] = {"sites": SITES, "rounds": rounds, "bytes_up": found["durable"][0]["bytes_up"]}
    for name, runs in found.items():
        pooled = {part: [value for one in runs for value in one["values"][part]] for part in runs[0]["values"]}
        medians = [common.summary(one["values"]["round_ms"])["median"] for one in runs]
        out[name] = {part: common.summary(values) | _ends(values) for part, values in pooled.items()}
        out[name] |= {"n": len(pooled["round_ms"]), "medians_by_repeat": medians}
    median = out["durable"]["round_ms"]["median"]
    return out | {"goal_ms": GOAL_MS, "met": median <= GOAL_MS}


def _ends(values: Sequence[float]) -> dict[str, float]:
    return {"min": common.rounded(min(values)), "max": common.rounded(max(values))}


def words(found: Mapping[str, Any]) -> list[str]:
    """For a terminal."""
    out = [f"a round of {found['sites']} sites beyond compute, {found['bytes_up']} bytes up:"]
    for name in ("durable", "no_outbox"):
        arm = found[name]
        total, parts = arm["round_ms"], "; ".join(f"{part} {arm[part]['median']:.1f}" for part in PARTS)
        quartiles = f"quartiles {total['q1']:.1f} to {total['q3']:.1f}, quickest {total['min']:.1f}"
        spread = f"{total['median']:.1f} ms ({quartiles}, n = {arm['n']})"
        out.append(f"  {name}: {spread}: {parts}")
        cpu = " + ".join(f"{who} {arm[f'{who}_cpu_ms']['median']:.1f}" for who in ("coordinator", "sites"))
        out.append(f"  {name}, CPU ms a round: {cpu}")
    return [*out, f"  goal {found['goal_ms']:.0f} ms, durable: {'met' if found['met'] else 'MISSED'}"]


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.wire_rounds", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds; the times mean nothing")
    parser.add_argument("--rounds", type=int, help="rounds of each federation (120; with --quick 12)")
    parser.add_argument("--repeats", type=int, help="federations of each kind (3; with --quick 1)")
    parser.add_argument("--out", type=Path, help="a file that the JSON line is added to")
    parser.add_argument("--site", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--durable", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args(argv)
    if flags.site:
        name, *paths = flags.site
        site(name, *map(Path, paths), durable=flags.durable)
        return
    load = os.getloadavg()[0]
    found = run(flags.rounds or (12 if flags.quick else 120), flags.repeats or (1 if flags.quick else 3))
    about = {"benchmark": "wire_rounds", "quick": flags.quick, "machine": common.machine()}
    about["versions"] = common.versions("jax", "pyzmq")
    print("\n".join(words(found)), file=sys.stderr)
    common.emit({**about, "load_before": load, "load_after": os.getloadavg()[0], **found}, flags.out)


if __name__ == "__main__":
    main()
