"""Planted faults: each must turn its test red, or the test shows nothing.

`make plants` (or `python -m tests.plants WORD...` for those whose name has a word of these) copies the tracked files
once, and for each fault below changes one place, runs the test that should notice, and puts the place back. It prints
a line a fault and ends with 1 if any went unnoticed. That each fault still finds its place is a test of its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.plant import Plant
from tests.plants_of_cells import CELLS
from tests.plants_of_speed import SPEED

ROOT = Path(__file__).parents[1]


_ORACLES = ("tests/algorithms/test_against_oracles.py",)
_THREADS = ("tests/federation/test_parity.py", "-k", "worker_threads and scaffold-mean")
_RESUME = ("tests/engines/test_resume_in_process.py",)
_RESTART = ("tests/engines/test_after_a_restart.py",)
_FULL = ("tests/federation/test_full_disks.py", "-k", "sample")
_BACKUP = ("tests/storage/test_backup.py",)
_MALFORMED = ("tests/network/test_malformed.py",)
_MINOR = ("tests/protocol/test_minor.py",)
_TUNNEL = ("tests/network/test_tunnel.py",)
_DOCTOR = ("tests/engines/test_doctor.py",)
_BEGUN = ("tests/engines/test_begun.py",)
_AT_A_SITE = ("tests/federation/test_at_a_site.py",)
_ODD = ("tests/engines/test_odd_days.py",)
_RECORDS = ("tests/data/test_records.py",)
_SCHEDULES = ("tests/protocol/schedules.py", "1000", "5000")
_PREDICT = ("tests/engines/test_predict.py",)

PLANTS: tuple[Plant, ...] = (
    # ---- one algorithm, two engines
    Plant(
        "coordinator: the products of its step are added without a rounding of their own",
        "learner_jax/engines/rounds.py",
        "server = uncontracted(lambda *of: federated.step(of[0], of[1], round, template), once - 1)(server, term)",
        "server = federated.step(server, term, round, template)",
        ("tests/engines/test_exact.py",),
    ),
    Plant(
        "coordinator: what is rounded twice is not rounded",
        "learner_jax/engines/exact.py",
        "jax.lax.bitcast_convert_type(leaf, bits) | jnp.asarray(zero, bits)",
        "jax.lax.bitcast_convert_type(leaf, bits) ^ jnp.asarray(zero, bits)",
        ("tests/engines/test_exact.py",),
    ),
    Plant(
        "worker: its update is scaled by 1.001",
        "learner_jax/engines/site_study.py",
        "answer = _answer(trees.named_leaves(wire), pack",
        "answer = _answer({n: x * x.dtype.type(1.001) for n, x in trees.named_leaves(wire).items()}, pack",
        _THREADS,
    ),
    Plant(
        "coordinator: adds in another order than that of site ids",
        "learner_jax/engines/coordinator.py",
        "wires = rounds.leaves(accepted, expected)",
        "wires = rounds.leaves(accepted[::-1], expected)",
        _THREADS,
    ),
    Plant(
        "worker: forgets its state after each round",
        "learner_jax/engines/site_study.py",
        "if not committed:\n            return fresh",
        "if committed is not None:\n            return fresh",
        _THREADS,
    ),
    # ---- references, averages, loaders
    Plant(
        "references of Newton: plain descent at the default rate in its place",
        "learner_jax/build.py",
        "if not any(key.startswith(",
        "if not study and not any(key.startswith(",
        ("tests/engines/test_references.py", "-k", "newton"),
    ),
    Plant(
        "pooled without validation rows keeps the start",
        "learner_jax/engines/judge.py",
        "History(parts), None\n",
        "History(parts), server\n",
        ("tests/engines/test_references.py", "-k", "newton"),
    ),
    Plant(
        "all but me: nobody is left out",
        "learner_jax/engines/judge.py",
        "for name, site in sites.items() if name != left_out}",
        "for name, site in sites.items() if name != left_out or len(sites) > 1}",
        ("tests/engines/test_references.py", "-k", "all_but_me"),
    ),
    Plant(
        "the average over rounds: its first rounds count too little",
        "learner_jax/algorithms/averaged.py",
        "jnp.maximum(1 - share, 1 / (rounds + 1).astype(m.dtype)).astype(m.dtype)",
        "jnp.asarray(1 - share, m.dtype)",
        _ORACLES,
    ),
    Plant(
        "a lasting loader starts anew in each round",
        "learner_jax/engines/world.py",
        "begin = (round_number - 1) * local.steps",
        "begin = 0",
        ("tests/data/test_plans.py",),
    ),
    # ---- figures from sums
    Plant(
        "histograms: rows of one bin are taken for ranked",
        "learner_jax/evaluation/histograms.py",
        "float(events @ under + within / 2) / pairs, within / 2 / pairs)",
        "float(events @ under + within / 2) / pairs, within / 20 / pairs)",
        ("tests/evaluation/test_histograms.py",),
    ),
    Plant(
        "histograms: tied events are forgotten in the bound of average precision",
        "learner_jax/evaluation/histograms.py",
        "high += e * (h + e) / (c + e)",
        "high += float(((h + np.arange(1, int(e) + 1)) / (c + np.arange(1, int(e) + 1))).sum())",
        ("tests/evaluation/test_histograms.py",),
    ),
    Plant(
        "AUROC by patient: rows of a patient are strangers",
        "learner_jax/evaluation/clustered.py",
        "    _, member = np.unique(np.asarray(group), return_inverse=True)\n    m, n",
        "    member = np.arange(len(y))\n    m, n",
        ("tests/evaluation/test_clustered.py",),
    ),
    Plant(
        "a bootstrap over sites draws a patient anew for each row",
        "learner_jax/evaluation/clustered.py",
        "patients, member = np.unique(np.asarray(group, np.int64), return_inverse=True)",
        "patients, member = np.arange(len(group)), np.arange(len(group))",
        ("tests/evaluation/test_clustered.py",),
    ),
    Plant(
        "recalibration: the slope is told from few events",
        "learner_jax/evaluation/calibration.py",
        "FOR_A_SLOPE = 100 ",
        "FOR_A_SLOPE = 10 ",
        ("tests/evaluation/test_calibration.py",),
    ),
    Plant(
        "histograms of cohorts that lie in each other leave",
        "learner_jax/evaluation/summary.py",
        "return max(cohorts, key=lambda cohort: int(cohorts[cohort].sum()))",
        "return min(cohorts, key=lambda cohort: int(cohorts[cohort].sum()))",
        ("tests/evaluation/test_summary.py",),
    ),
    Plant(
        "a histogram is taken where the study did not ask for it",
        "learner_jax/evaluation/summary.py",
        'kept = (*_FIELDS, "subgroups", "histogram") if release else (*_FIELDS, "subgroups")',
        'kept = (*_FIELDS, "subgroups", "histogram")',
        ("tests/evaluation/test_summary.py",),
    ),
    Plant(
        "a site that has not agreed to histograms takes part",
        "learner_jax/engines/worker.py",
        '.release.histograms == "plain" and not release_histograms:',
        '.release.histograms == "plain" and release_histograms is None:',
        ("tests/federation/test_release.py", "-k", "not_agreed"),
    ),
    Plant(
        "a query: a ragged row becomes the header",
        "learner_jax/data/query.py",
        "    if there != wanted:",
        "    if not there:",
        ("tests/data/test_query.py",),
    ),
    # ---- tables and records
    Plant(
        "a query's rows in the order of the files",
        "learner_jax/data/query.py",
        "FROM the_table ORDER BY ALL",
        "FROM the_table",
        ("tests/data/test_query.py",),
    ),
    Plant(
        "drift: a site is held against all sites, itself among them",
        "learner_jax/data/suspect.py",
        "elsewhere = others(everyone[name], here)",
        "elsewhere = everyone[name]",
        ("tests/data/test_suspect.py",),
    ),
    Plant(
        "a column that knows the outcome by being empty is not suspected",
        "learner_jax/data/suspect.py",
        "scores = [absent.astype(np.float64)] if absent.any() else []",
        "scores: list[np.ndarray] = []",
        ("tests/data/test_suspect.py",),
    ),
    Plant(
        "laboratory: results after the discharge count",
        "learner_jax/data/measured.py",
        "AND (e.time BETWEEN s.admit AND s.discharge ",
        "AND (e.time >= s.admit ",
        ("tests/data/test_measured.py",),
    ),
    Plant(
        "laboratory: amounts of substance are taken for masses",
        "learner_jax/data/units.py",
        'quantity = quantity * registry.Quantity(molar, "gram / mole")',
        'quantity = quantity * registry.Quantity(100.0, "gram / mole")',
        ("tests/data/test_measured.py",),
    ),
    # ---- methods and rules against their papers' loops
    Plant(
        "FedProx: the proximal term pushes away",
        "learner_jax/algorithms/fedprox.py",
        "g + mu * (w - w_t)",
        "g - mu * (w - w_t)",
        _ORACLES,
    ),
    Plant(
        "SCAFFOLD: the server's control by the cohort, not by all sites",
        "learner_jax/algorithms/scaffold.py",
        "total.control / round.enrolled",
        "total.control / round.cohort",
        _ORACLES,
    ),
    Plant(
        "FedAdagrad: tau, not tau squared, under the root",
        "learner_jax/algorithms/fedopt.py",
        "eps=tau**2",
        "eps=tau",
        _ORACLES,
    ),
    Plant(
        "mean: every site counts the same",
        "learner_jax/aggregators/mean.py",
        "trees.weigh(weight, update), weight), memory",
        "update, jax.tree.map(jnp.ones_like, weight)), memory",
        _ORACLES,
    ),
    Plant(
        "median: of an even number of sites the lower of the middle two",
        "learner_jax/aggregators/median.py",
        "jnp.where(count > 0, (low + high) / 2, 0)",
        "jnp.where(count > 0, low, 0)",
        ("tests/aggregators",),
    ),
    Plant(
        "statistics: the deviation is off by 5e-5 of itself",
        "learner_jax/statistics/moments.py",
        "return centre + shift, np.sqrt(variance)",
        "return centre + shift, np.sqrt(variance * 1.0001)",
        ("tests/statistics",),
    ),
    Plant(
        "a method of one's own: the momentum is added twice",
        "docs/your-own-method.md",
        "lambda m, g: beta * m + g",
        "lambda m, g: beta * m + g + beta * m",
        ("tests/test_docs.py", "-k", "the_method_of_the_page"),
    ),
    # ---- health records
    Plant(
        "records: a visit is a stay by its concept alone",
        "learner_jax/data/doors/omop.py",
        "{concept} IN {INPATIENT} OR {source} IS NOT NULL THEN",
        "{concept} IN {INPATIENT} THEN",
        _RECORDS,
    ),
    Plant(
        "records: codes keep their points",
        "learner_jax/data/doors/records.py",
        r"regexp_replace(code, '[\s.]', '', 'g')",
        r"regexp_replace(code, '[\s]', '', 'g')",
        _RECORDS,
    ),
    Plant(
        "records: a time with an offset is moved to another clock",
        "learner_jax/data/doors/records.py",
        "try_cast(regexp_replace(said",
        "try_cast(coalesce(try_cast(said AS TIMESTAMPTZ)::VARCHAR, said",
        _RECORDS,
    ),
    Plant(
        "records: an id goes through a float",
        "learner_jax/data/doors/omop.py",
        "INSERT INTO patients SELECT try_cast(person_id AS BIGINT)",
        "INSERT INTO patients SELECT try_cast(person_id AS DOUBLE)::BIGINT",
        _RECORDS,
    ),
    Plant(
        "cohort: only stays that touch are merged",
        "learner_jax/data/cohorts.py",
        "+ to_seconds({3600 * gap_hours}) THEN",
        "+ to_seconds({0 * gap_hours}) THEN",
        _RECORDS,
    ),
    Plant(
        "cohort: a stay that ended in death is an index stay",
        "learner_jax/data/cohorts.py",
        "for place in rule.discharged_not_to:",
        "for place in rule.discharged_not_to[1:]:",
        _RECORDS,
    ),
    Plant(
        "cohort: the window is one day longer",
        "learner_jax/data/cohorts.py",
        "n.admit::DATE) <= {rule.window_days}",
        "n.admit::DATE) <= 1 + {rule.window_days}",
        _RECORDS,
    ),
    Plant(
        "cohort: each stay is spaced from the one before, not from the last index stay",
        "learner_jax/data/cohorts.py",
        "                last[patient] = discharge\n",
        "            last[patient] = discharge\n",
        _RECORDS,
    ),
    # ---- going on
    Plant(
        "resume: a round's digest is not compared",
        "learner_jax/engines/keeper.py",
        "if before is not None and before != digest:",
        "if before is not None and before != digest and not self._committed:",
        _RESUME,
    ),
    Plant(
        "resume: the sites' states are not restored",
        "learner_jax/engines/keeper.py",
        'states = self._fitted(step, states, items["sites"])',
        "pass",
        _RESUME,
    ),
    Plant(
        "resume: what a round found of the one before is forgotten",
        "learner_jax/engines/history.py",
        'self.curve[-1].update(told["before"])',
        "pass",
        _RESUME,
    ),
    Plant(
        "resume: a journal that does not say all rounds is gone on with",
        "learner_jax/engines/keeper.py",
        "if len(found) != step:",
        "if len(found) > step:",
        _RESUME,
    ),
    Plant(
        "resume: other rows are not seen",
        "learner_jax/engines/keeper.py",
        'if items["meta"].get("rows", self._rows) != self._rows:',
        'if items["meta"].get("rows", self._rows) is self:',
        _RESUME,
    ),
    Plant(
        "resume: a round is said after its step, and by a kill between them never",
        "learner_jax/engines/simulator.py",
        "                    on_event(_closed(study, number, history, figures))  "
        "# before its step: see the coordinator\n"
        "                if step is not None:\n"
        "                    keeper.step(*step)\n",
        "                    keeper.step(*newest)\n"
        "                on_event(_closed(study, number, history, figures))\n",
        (*_RESUME, "-k", "no_round_is_missing"),
    ),
    Plant(
        "kill -9 of a simulation: goes on with other states of the sites",
        "learner_jax/engines/keeper.py",
        "return step, restored, states, best_round, notes",
        "import jax\n\n            return step, restored, jax.tree.map(lambda x: x * 0, states), best_round, notes",
        ("tests/federation/test_kills.py", "-k", "simulation_is_killed"),
    ),
    Plant(
        "kill -9 of a coordinator: goes on with another server state",
        "learner_jax/engines/coordinator.py",
        "done, server, _, best, notes = keeper.restore(server, (), history)",
        "done, _, _, best, notes = keeper.restore(server, (), history)",
        ("tests/federation/test_kills.py", "-k", "coordinator_is_killed"),
    ),
    # ---- through a broker
    Plant(
        "seal: a header's signature is not checked",
        "learner_jax/network/seal.py",
        "return verify(public, way + about",
        "return bool(sealed[_SIGNED]) or verify(public, way + about",
        ("tests/network/test_seal.py",),
    ),
    Plant(
        "seal: a payload travels as it is",
        "learner_jax/network/seal.py",
        'return sealed, self._key(self._way).encrypt(b"\\0\\0\\0\\0" + count, payload, sealed)',
        "return sealed, bytes(payload)",
        ("tests/network/test_seal.py",),
    ),
    Plant(
        "seal: what was said before counts again",
        "learner_jax/network/seal.py",
        "if count <= self._heard.get(other, 0):",
        "if count < 0:",
        ("tests/network/test_seal.py",),
    ),
    Plant(
        "enrolment: anybody's answer is the coordinator's",
        "learner_jax/network/enrol.py",
        "if not verify(code.coordinator, ANSWERS + header + told, signature):",
        "if not signature:",
        ("tests/network/test_enrol.py",),
    ),
    Plant(
        "enrolment: a broker may put its own keys in",
        "learner_jax/network/enrol.py",
        'if not verify(self.roster.proofs.get(code, b""), ENROLS + header, signature):',
        "if not signature:",
        ("tests/network/test_enrol.py",),
    ),
    Plant(
        "broker: a coordinator lets in another's guests",
        "learner_jax/engines/broker.py",
        "if taken:",
        "if taken is None:",
        ("tests/network/test_brokered.py",),
    ),
    Plant(
        "broker: does not ask the coordinators anew when it was started again",
        "learner_jax/network/brokered.py",
        "        if self._line.connected != was:\n            self._told = None\n",
        "        if self._line.connected != was:\n",
        ("tests/network/test_brokered.py",),
    ),
    Plant(
        "links: who is revoked keeps its connection",
        "learner_jax/network/links.py",
        "                self.unended.hang_up(frame)",
        "                pass",
        ("tests/network/test_links.py", "-k", "revoking"),
    ),
    Plant(
        "broker: what its line does not hold is dropped",
        "learner_jax/network/brokered.py",
        "            self._waiting.append((user, header, payload))\n            return True\n",
        "            return False\n",
        ("tests/network/test_brokered.py", "-k", "in_its_turn"),
    ),
    Plant(
        "broker: a coordinator that is taken off it stays",
        "learner_jax/engines/broker.py",
        "                    requests.take(folder, NAME, desk, forgotten, on_event, inviting)\n",
        "                    pass\n",
        ("tests/network/test_brokered.py", "-k", "taken_off"),
    ),
    Plant(
        "newcomers: one is asked in the round before it is ready",
        "learner_jax/engines/newcomers.py",
        "        return self._names\n\n    def _ready",
        "        return (*self._names, *self._come())\n\n    def _ready",
        ("tests/engines/test_newcomers.py",),
    ),
    Plant(
        "newcomers: a coordinator that is started again forgets who came",
        "learner_jax/engines/newcomers.py",
        "            new = self._entered[number]",
        "            new = ()",
        ("tests/engines/test_newcomers.py",),
    ),
    Plant(
        "newcomers: one comes into a round that was asked without it",
        "learner_jax/engines/newcomers.py",
        "elif (number, PHASES.index(ENTER)) < self._reached:",
        "elif False:",
        ("tests/engines/test_newcomers.py",),
    ),
    Plant(
        "newcomers: one whose id is another's takes part",
        "learner_jax/engines/newcomers.py",
        "                site_ids((*self._names, *come, site))\n",
        "",
        ("tests/engines/test_newcomers.py",),
    ),
    Plant(
        "newcomers: the server's step does not know of one more site",
        "learner_jax/engines/coordinator.py",
        "return Reducer(federated, template, wire, parts.number, study.seed, enrolled, cohort",
        "return Reducer(federated, template, wire, parts.number, study.seed, len(sites), cohort",
        ("tests/federation/test_newcomers.py", "-m", "soak or not soak", "-k", "next_round and scaffold"),
    ),
    Plant(
        "newcomers: one who left is waited for until the deadline",
        "learner_jax/protocol/coordinator.py",
        "        if start.quorum == 0:\n",
        "        if start.quorum < 0:\n",
        ("tests/protocol/test_coordinator.py", "-k", "last_one_leaves"),
    ),
    Plant(
        "newcomers: what a buffered round has on its way is refused meanwhile",
        "learner_jax/protocol/coordinator.py",
        "        if not between:\n            self._go_on_with",
        "        if True:\n            self._go_on_with",
        ("tests/protocol/test_coordinator.py", "-k", "between_buffered"),
    ),
    Plant(
        "newcomers: what is late of their phase counts in the next buffered round",
        "learner_jax/protocol/coordinator.py",
        "            if share.part in _UNDER_WAY and self._round.start.buffer:",
        "            if share.part in _UNDER_WAY and self._buffered:",
        ("tests/protocol/test_coordinator.py", "-k", "comes_late_counts_in_no"),
    ),
    Plant(
        "newcomers: a backup wants what they answered, which is swept",
        "learner_jax/storage/backup.py",
        "if row.round == 0 or row.round > done]",
        'if row.phase != "train" or row.round > done]',
        _BACKUP,
    ),
    Plant(
        "broker: who was taken off it while it did not run is let in first",
        "learner_jax/engines/broker.py",
        "        requests.take(folder, NAME, desk, lambda event: None, on_event)  # before anybody is let in\n",
        "",
        ("tests/network/test_brokered.py", "-k", "while_no_broker_ran"),
    ),
    Plant(
        "broker: what is said after a Bye is taken for an old one",
        "learner_jax/network/seal.py",
        "        side.count = once.count\n",
        "",
        ("tests/network/test_seal.py", "-k", "earlier_process"),
    ),
    Plant(
        "machine: a site that was refused is not asked again when it is started again",
        "learner_jax/protocol/coordinator.py",
        "            self._ask_anew(site)\n",
        "",
        ("tests/protocol/test_coordinator.py", "-k", "refused_site"),
    ),
    Plant(
        "backup: a damaged update is copied",
        "learner_jax/storage/backup.py",
        "                _undamaged(needed, files)\n",
        "",
        ("tests/storage/test_backup.py", "-k", "damaged_update"),
    ),
    Plant(
        "rotate: the old keys stay valid",
        "learner_jax/network/enrol.py",
        "        if self._link is not None:\n            self._link.revoke(old.curve_public)\n",
        "",
        ("tests/network/test_rotate.py",),
    ),
    Plant(
        "rotate: keys without a proof are taken",
        "learner_jax/network/enrol.py",
        "if not verify(asked.sign_public, rotation(study, name, asked.curve_public), asked.proof):",
        "if not asked.proof:",
        ("tests/network/test_rotate.py",),
    ),
    Plant(
        "rotate: the old keys go before the new ones were used",
        "learner_jax/network/enrol.py",
        "        return m.Rotated(study, asked.curve_public)\n",
        "        self.gone_over(name)\n        return m.Rotated(study, asked.curve_public)\n",
        ("tests/network/test_rotate.py",),
    ),
    Plant(
        "revoke: the site gets a new join code",
        "learner_jax/network/enrol.py",
        "if name in desk.roster.sites or name in desk.roster.revoked:",
        "if name in desk.roster.sites:",
        ("tests/federation/test_revoke.py",),
    ),
    Plant(
        "revoke: the machine is not told",
        "learner_jax/engines/requests.py",
        "                post(c.Forget(site))  # whatever the disk says of the roster\n",
        "                pass\n",
        ("tests/federation/test_revoke.py",),
    ),
    # ---- what leaves
    Plant(
        "a site's figures carry a row",
        "learner_jax/engines/site_study.py",
        "text = json.dumps(found, allow_nan=False).encode()",
        "found = {k + str(self._frame.iloc[0].tolist()): v for k, v in found.items()}\n"
        "        text = json.dumps(found, allow_nan=False).encode()",
        ("tests/federation/test_canary.py", "-k", "no_canary"),
    ),
    # ---- bad input
    Plant(
        "numbers that are not finite count",
        "learner_jax/leaves.py",
        "        if bad:\n",
        "        if bad < 0:\n",
        ("tests/test_leaves.py",),
    ),
    Plant(
        "numbers that are not finite count: only the first block of a file is looked at",
        "learner_jax/leaves.py",
        "bad += _not_finite(_as(part, spec._replace(shape=(-1,))))",
        "bad += 0 if start else _not_finite(_as(part, spec._replace(shape=(-1,))))",
        ("tests/test_leaves.py",),
    ),
    Plant(
        "an update of which the end is missing is kept",
        "learner_jax/storage/spool.py",
        "if part is None or part.written != part.size:",
        "if part is None:",
        ("tests/storage/test_spool.py",),
    ),
    Plant(
        "an update is put together with a gap",
        "learner_jax/storage/spool.py",
        "if part is None or part.written != offset:",
        "if part is None:",
        ("tests/storage/test_spool.py",),
    ),
    Plant(
        "a chunk across two leaves is cut off",
        "learner_jax/leaves.py",
        'return found[0] if len(found) == 1 else b"".join(found)',
        'return found[0] if found else b""',
        ("tests/test_leaves.py",),
    ),
    Plant(
        "transfers: chunks that came early are forgotten",
        "learner_jax/protocol/transfers.py",
        "            self._ahead[index] = bytes(payload)  # the line's memory is its own\n",
        "            del self._ahead[index]\n",
        ("tests/protocol/test_transfers.py",),
    ),
    Plant(
        "transfers: more than a window waits for a chunk that is late",
        "learner_jax/protocol/transfers.py",
        "most = min(self._count, self._next + free - len(picked), self._hashed + self._window)",
        "most = min(self._count, self._next + free - len(picked))",
        ("tests/protocol/test_transfers.py",),
    ),
    Plant(
        "accounts: an update that the disk refused is gone on with",
        "learner_jax/protocol/coordinator.py",
        '    (Part.SPOOLING, "unwritten"): (Part.QUEUED, "_wait"),\n',
        "",
        _SCHEDULES,
    ),
    Plant(
        "a join code works twice",
        "learner_jax/network/keys.py",
        "codes, proofs = self._without_codes((code, *self.codes_for(name)))",
        "codes, proofs = dict(self.codes), dict(self.proofs)",
        ("tests/network/test_keys.py", "tests/network/test_enrol.py"),
    ),
    # ---- the account of rounds, each found by random schedules alone
    Plant(
        "accounts: acknowledged before it is journaled",
        "learner_jax/protocol/coordinator.py",
        "        origin = 0 if share.offer.round == number else share.offer.round\n",
        "        origin = 0 if share.offer.round == number else share.offer.round\n"
        "        self._send(site, m.Accepted(self.study, self.epoch, share.offer.round, phase, digest))\n",
        _SCHEDULES,
    ),
    Plant(
        "accounts: journaled before it is spooled",
        "learner_jax/protocol/coordinator.py",
        '(Part.CHECKING, "valid"): (Part.SPOOLING, "_spool"),',
        '(Part.CHECKING, "valid"): (Part.JOURNALING, "_journal"),',
        _SCHEDULES,
    ),
    Plant(
        "accounts: a round closes below its quorum",
        "learner_jax/protocol/coordinator.py",
        "if len(accepted) < open_round.start.quorum or",
        "if len(accepted) < open_round.start.quorum - 1 or",
        _SCHEDULES,
    ),
    Plant(
        "accounts: what was accepted before a restart is forgotten",
        "learner_jax/protocol/coordinator.py",
        "shares[site] = _Share(Part.ACCEPTED, digest=digest)",
        "shares[site] = _Share()",
        _SCHEDULES,
    ),
    Plant(
        "accounts: an upload that stands still takes its room again at once",
        "learner_jax/protocol/coordinator.py",
        "in sorted(queued, key=lambda pair: pair[1].moved) if len(queued) > 1 else queued:",
        "in queued:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "accounts: closes while a row is being written",
        "learner_jax/protocol/coordinator.py",
        "if Part.JOURNALING in parts or not settled:",
        "if not settled:",
        _SCHEDULES,
    ),
    Plant(
        "accounts: an update of another broadcast counts",
        "learner_jax/protocol/coordinator.py",
        "elif offer.broadcast != self._broadcasts.get(place):",
        "elif offer.broadcast is None:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "accounts: a late update is acknowledged",
        "learner_jax/protocol/coordinator.py",
        "elif accepted == digest:",
        "elif accepted == digest or (_order(place) <= self._closed and not self._takes(place)):",
        _SCHEDULES,
    ),
    Plant(
        "accounts: an acknowledgement is not said again",
        "learner_jax/protocol/coordinator.py",
        "self._send(site, m.Accepted(self.study, self.epoch, *place, digest))\n            return",
        "return",
        _SCHEDULES,
    ),
    Plant(
        "accounts: the list is not in the order of site ids",
        "learner_jax/protocol/coordinator.py",
        "for site in sorted(event.cohort, key=site_id)}",
        "for site in sorted(event.cohort)}",
        _SCHEDULES,
    ),
    Plant(
        "accounts: a lost site is said with each tick",
        "learner_jax/protocol/coordinator.py",
        "        session.said = session.here\n",
        "",
        _SCHEDULES,
    ),
    Plant(
        "site: commits its state when it offers, not when it is acknowledged",
        "learner_jax/protocol/site.py",
        '(Job.WRITING, "written"): (Job.OFFERING, "_offer"),',
        '(Job.WRITING, "written"): (Job.COMMITTING, "_commit"),',
        _SCHEDULES,
    ),
    Plant(
        "site: an offer is not said again",
        "learner_jax/protocol/site.py",
        '    (Job.OFFERING, "silence"): (Job.OFFERING, "_offer"),\n    ',
        "    ",
        _SCHEDULES,
    ),
    Plant(
        "site: forgets its outbox when it is started again",
        "learner_jax/protocol/site.py",
        "if pending is not None:",
        "if pending is not None and not pending:",
        _SCHEDULES,
    ),
    Plant(
        "site: works on for a round that closed without it",
        "learner_jax/protocol/site.py",
        "if self._newest is not None and not _same(self._newest, self._open) and not self._still_counts(event.round):",
        "if self._newest is None:",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "site: takes an older coordinator's word",
        "learner_jax/protocol/site.py",
        "if welcome.epoch < self._epoch_seen:",
        "if welcome.epoch < 0:",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "transfer: lost chunks are not asked for again",
        "learner_jax/protocol/transfers.py",
        "if now - asked >= self._patience:",
        "if now < asked:",
        _SCHEDULES,
    ),
    Plant(
        "minor: an older side is told what it does not know",
        "learner_jax/protocol/messages.py",
        "if added.get(name, 0) <= minor}",
        "if added.get(name, 0) <= minor + 9}",
        _MINOR,
    ),
    Plant(
        "minor: an older side must say what it does not know",
        "learner_jax/protocol/messages.py",
        "if name not in values and name not in added:",
        "if name not in values:",
        _MINOR,
    ),
    Plant(
        "minor: a site never says Hello in older words",
        "learner_jax/protocol/site.py",
        "minor = self._minor if self._hellos % _OLDEST else 0",
        "minor = self._minor",
        _MINOR,
    ),
    Plant(
        "minor: what a site agreed is forgotten",
        "learner_jax/protocol/coordinator.py",
        "minor = session.protocol[1] if session else 0",
        "minor = m.PROTOCOL[1]",
        _MINOR,
    ),
    Plant(
        "bad input: a header nested too deep ends the coordinator",
        "learner_jax/protocol/messages.py",
        "else _SHOWN.repr(value)",
        "else repr(value)",
        ("tests/fuzz",),
    ),
    Plant(
        "bad input: a roster nested too deep is no refusal",
        "learner_jax/network/keys.py",
        "except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):",
        "except (OSError, ValueError, KeyError, TypeError, AttributeError):",
        ("tests/fuzz",),
    ),
    Plant(
        "bad input: figures that cannot be joined are taken",
        "learner_jax/engines/figures.py",
        "{} if found == {} else check(found, peer)",
        "found",
        ("tests/engines/test_read_summary.py",),
    ),
    Plant(
        "transfer: a chunk may stand off the grid",
        "learner_jax/protocol/transfers.py",
        "sound = not rest and chunk.offset < self._rest",
        "sound = chunk.offset < self._rest",
        ("tests/protocol/test_transfers.py",),
    ),
    # ---- buffered rounds
    Plant(
        "buffer: an update counts wholly, however late",
        "learner_jax/engines/coordinator.py",
        "1.0 / math.sqrt(1.0 + late[site])",
        "1.0 / math.sqrt(1.0 + 0 * late[site])",
        ("tests/federation/test_buffered.py",),
    ),
    Plant(
        "buffer: a late update is of the round that it counts in",
        "learner_jax/protocol/coordinator.py",
        "        origin = 0 if share.offer.round == number else share.offer.round\n",
        "        origin = 0\n",
        _SCHEDULES,
    ),
    Plant(
        "buffer: a site counts twice in a round",
        "learner_jax/protocol/coordinator.py",
        '    (Part.ACCEPTED, "offer"): (Part.ACCEPTED, "_next_time"),\n',
        '    (Part.ACCEPTED, "offer"): (Part.QUEUED, "_begin"),\n',
        _SCHEDULES,
    ),
    Plant(
        "buffer: any earlier round will do",
        "learner_jax/protocol/coordinator.py",
        "place[0] < start.oldest",
        "place[0] < 0",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "buffer: what is on its way is refused when a round closes",
        "learner_jax/protocol/coordinator.py",
        "                self._under_way[site] = share\n",
        "                self._refuse_again(site, share, share.offer)\n",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "buffer: a site drops what a later round would take",
        "learner_jax/protocol/site.py",
        "number >= oldest",
        "number > newest.round",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "buffer: a slow site begins its download anew with each round",
        "learner_jax/protocol/site.py",
        "        return counts and not self._gone(before)\n",
        "        return False\n",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "buffer: a restarted coordinator refuses for good what its first round would take",
        "learner_jax/protocol/coordinator.py",
        "self._may_buffer = self._buffered = buffered",
        "self._may_buffer, self._buffered = buffered, False",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "buffer: what was refused for good counts in a later round",
        "learner_jax/protocol/coordinator.py",
        '        elif self._final.get((*place, site), ("", ""))[0] == digest:',
        '        elif self._final.get((*place, site), ("", ""))[0] is digest:',
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "buffer: a round that was refused for good once is refused whatever is offered",
        "learner_jax/protocol/coordinator.py",
        '        elif self._final.get((*place, site), ("", ""))[0] == digest:',
        "        elif (*place, site) in self._final:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "revoke: a round waits for a site that was taken off the roster",
        "learner_jax/protocol/coordinator.py",
        "            self._without_the_forgotten(self._round)",
        "            pass",
        _SCHEDULES,
    ),
    Plant(
        "full: a line for people ends the loop where the disk of its log is full",
        "learner_jax/cli/progress.py",
        "        except BrokenPipeError:\n            raise\n        except OSError:\n            pass",
        "        except BrokenPipeError:\n            raise",
        _ODD,
    ),
    Plant(
        "full: an update that cannot be read once ends the loop",
        "learner_jax/engines/coordinator.py",
        "except OSError as error:  # read again later",
        "except KeyError as error:",
        _ODD,
    ),
    Plant(
        "full: what is swept up after a failed write fails, too",
        "learner_jax/storage/atomic.py",
        "        with contextlib.suppress(OSError):  # on a disk",
        "        with contextlib.suppress(KeyError):  # on a disk",
        _ODD,
    ),
    Plant(
        "full: a failed read of a site's outbox is called corruption",
        "learner_jax/storage/outbox.py",
        '    except OSError as error:\n        raise StorageError(f"expected to read {path}',
        '    except OSError as error:\n        raise CorruptError(f"expected to read {path}',
        _ODD,
    ),
    Plant(
        "revoke: a revoked sender keeps the loop from its turn",
        "learner_jax/network/links.py",
        "                return self._take()  # None of whom",
        "                self._take()\n                continue  # None of whom",
        _ODD,
    ),
    Plant(
        "site: a manifest of odd bytes is a traceback",
        "learner_jax/engines/site_study.py",
        "except (UnicodeDecodeError, RecursionError, TypeError, AttributeError, KeyError) as error:",
        "except KeyError as error:",
        _ODD,
    ),
    Plant(
        "site: after hours of silence its patience is too large a number",
        "learner_jax/protocol/site.py",
        "1.5 ** min(self._hellos, 20)",
        "1.5 ** self._hellos",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "broker: a message of too many frames ends it",
        "learner_jax/engines/broker.py",
        "except RemoteProtocolError as error:  # of more frames than a message has",
        "except KeyError as error:",
        ("tests/network/test_brokered.py",),
    ),
    Plant(
        "broker: a key that two claim lets neither's others in",
        "learner_jax/engines/broker.py",
        "users = {key: name for key, name in users.items() if key not in taken}",
        "users = {} if taken else users",
        ("tests/network/test_brokered.py",),
    ),
    Plant(
        "broker: an old Hello makes old messages new",
        "learner_jax/network/seal.py",
        "        self.other, self._shared = other, shared\n",
        "        self.other, self._shared = other, shared\n        self._heard.clear()\n",
        ("tests/network/test_seal.py",),
    ),
    Plant(
        "rotation: a full disk ends the line",
        "learner_jax/network/enrol.py",
        "            except CryptoError:  # the disk is full",
        "            except KeyError:  # the disk is full",
        ("tests/network/test_rotate.py",),
    ),
    Plant(
        "finish: a summary that joins with none is taken",
        "learner_jax/evaluation/summary.py",
        "    if not holds:\n",
        "    if not holds and not what:\n",
        ("tests/evaluation/test_check_summary.py",),
    ),
    Plant(
        "statistics: a negative count of rows is taken",
        "learner_jax/statistics/plausible.py",
        "(array < 0).any()",
        "(array < -1e30).any()",
        ("tests/engines/test_rounds_without_some.py",),
    ),
    Plant(
        "revoke: after a restart a round needs fewer, though the site counts",
        "learner_jax/engines/coordinator.py",
        "gone = set(self._roster()[1]) - set(accepted)",
        "gone = set(self._roster()[1])",
        ("tests/engines/test_rounds_without_some.py",),
    ),
    Plant(
        "revoke: what is damaged of a site that is gone is waited for",
        "learner_jax/protocol/coordinator.py",
        "for site, digest in start.again.items() if site not in self._forgotten}",
        "for site, digest in start.again.items()}",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "resume: a round that is run again has the figures of the second time",
        "learner_jax/engines/keeper.py",
        "return figures if stands is None else stands",
        "return figures",
        ("tests/engines/test_rounds_without_some.py",),
    ),
    Plant(
        "accounts: the word of one site stops a coordinator",
        "learner_jax/protocol/coordinator.py",
        "if 2 * len(self._newer) > max(len(self._enrolled), self._invited - len(self._forgotten)):",
        "if self._newer:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "broker: an ephemeral key that makes no secret ends the coordinator's line",
        "learner_jax/network/seal.py",
        "        except ValueError:\n            raise RemoteProtocolError(peer",
        "        except KeyError:\n            raise RemoteProtocolError(peer",
        ("tests/network/test_seal.py",),
    ),
    Plant(
        "broker: whoever makes up names makes as many accounts",
        "learner_jax/protocol/broker.py",
        "if len(self._buckets) > _ACCOUNTS:",
        "if len(self._buckets) < 0:",
        ("tests/protocol/test_broker.py",),
    ),
    Plant(
        "broker: a reason is said once for each size",
        "learner_jax/engines/broker.py",
        'kind = re.sub(r"\\d+", "", reason)',
        "kind = reason",
        ("tests/network/test_brokered.py",),
    ),
    Plant(
        "resume: the figures of a round that is run again are not written",
        "learner_jax/engines/keeper.py",
        "if stands is None else []",
        "if stands is None and before is None else []",
        _RESUME,
    ),
    Plant(
        "flood: another view of a blob for each question",
        "learner_jax/protocol/coordinator.py",
        "!= want.have and not self._turns.allow(site, self._now):",
        "!= want.have and not site:",
        ("tests/protocol/test_coordinator.py",),
    ),
    # ---- what is here already, and what compresses
    Plant(
        "pieces: a leaf that is as it was is sent again",
        "learner_jax/protocol/transfers.py",
        "        if entry in places and entry[0]:\n",
        "        if entry in places and not entry[0]:\n",
        ("tests/protocol/test_transfers.py", "tests/protocol/test_site.py"),
    ),
    Plant(
        "pieces: after a restart a site has none",
        "learner_jax/engines/worker.py",
        "            held=held(outbox.folder / _BROADCAST),\n",
        "",
        ("tests/federation/test_unchanged.py",),
    ),
    Plant(
        "pieces: a coordinator drops what the next update shares with the last",
        "learner_jax/protocol/coordinator.py",
        "            self._kept[site] = Held(share.offer.pieces, share.data)\n",
        "            self._kept.pop(site, None)\n",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "pieces: what lies on the disk is tried again where it was spoilt",
        "learner_jax/protocol/site.py",
        "        self._receiver = self._receive(self._open, None)\n",
        "        self._receiver = self._receive(self._open, self._held)\n",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "pieces: chunks of two views of a blob are mixed",
        "learner_jax/protocol/transfers.py",
        "if (chunk.digest, chunk.have) != (self.blob.digest, self._have):",
        "if chunk.digest != self.blob.digest:",
        ("tests/protocol/test_transfers.py",),
    ),
    Plant(
        "pieces: what had come of a large update is forgotten in a restart",
        "learner_jax/protocol/coordinator.py",
        "        data = self._parts.pop((site, offer.blob.digest), None)\n",
        "        data = None\n",
        ("tests/network/test_resume.py",),
    ),
    Plant(
        "pieces: a broker sees digests of an update's parts",
        "learner_jax/protocol/messages.py",
        "if name != BESIDE.get(cls)}",
        "if name}",
        ("tests/protocol/test_messages.py",),
    ),
    Plant(
        "zstd: a bomb is believed",
        "learner_jax/protocol/zipped.py",
        "        if said != length:",
        "        if said < length:",
        ("tests/protocol/test_transfers.py",),
    ),
    Plant(
        "bfloat16: a simulator does not round what it sends",
        "learner_jax/federate.py",
        "        return jax.lax.reduce_precision(leaf, exponent_bits=8, mantissa_bits=7).astype(jnp.bfloat16)\n",
        "        return leaf\n",
        ("tests/test_federate.py",),
    ),
    Plant(
        "bfloat16: weights are rounded as well",
        "learner_jax/federate.py",
        "narrow(encoded, keep=jax.tree.leaves(report.weight))",
        "narrow(encoded)",
        ("tests/test_federate.py",),
    ),
    # ---- what is told beforehand
    Plant(
        "forecast: an acknowledgement is not counted",
        "learner_jax/engines/forecast.py",
        "+ len(m.encode(accepted))",
        "",
        ("tests/engines/test_forecast.py", "-k", "links_count"),
    ),
    Plant(
        "forecast: a receiver asks for a whole window each time",
        "learner_jax/engines/forecast.py",
        "WINDOW if not at else WINDOW // 2",
        "WINDOW if not at else WINDOW",
        ("tests/engines/test_forecast.py", "-k", "links_count or asks_for"),
    ),
    Plant(
        "forecast: the sites' lines count, the coordinator's does not",
        "learner_jax/engines/forecast.py",
        "max(one / mbit, all_ / line.coordinator_mbit)",
        "one / mbit",
        ("tests/engines/test_forecast.py",),
    ),
    Plant(
        "forecast: of another model than what travels",
        "learner_jax/engines/expected.py",
        "update=schema_bytes(up),",
        "update=schema_bytes(trees.schema(weights)),",
        _THREADS,
    ),
    # ---- what a peer may not do
    Plant(
        "flood: each frame that is no message is a line in the log",
        "learner_jax/protocol/complaints.py",
        "return more < 0",
        "return True",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "flood: a site that comes and goes is said each time",
        "learner_jax/protocol/coordinator.py",
        "if len(session.sayings) >= _SAYINGS:",
        "if len(session.sayings) < 0:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "flood: chunks are handed out as fast as they are asked for",
        "learner_jax/protocol/coordinator.py",
        "if not self._chunks.allow(site, self._now):",
        "if not self._chunks.allow(site, self._now) and not site:",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "flood: no rate limit",
        "learner_jax/network/drive.py",
        "if not self._meter.allow(user, time.monotonic()):",
        "if not self._meter.allow(user, time.monotonic()) and not user:",
        (*_MALFORMED, "-k", "shed"),
    ),
    Plant(
        "bad input: an update that is not what the round is of",
        "learner_jax/protocol/coordinator.py",
        "if early and (blob.schema_digest != start.update_schema or blob.size != size):",
        "if early and blob.size != size:",
        (*_MALFORMED, "-k", "does_not_fit"),
    ),
    Plant(
        "bad input: a chunk of any length is taken",
        "learner_jax/protocol/broker.py",
        "elif payload > CHUNK:",
        "elif payload > 2 * CHUNK:",
        (*_MALFORMED, "-k", "each_wrong_frame"),
    ),
    Plant(
        "bad input: another site's name is taken",
        "learner_jax/protocol/coordinator.py",
        "if offer.site != site:",
        "if offer.site == site + site:",
        (*_MALFORMED, "-k", "each_wrong_frame"),
    ),
    Plant(
        "bad input: what was asked for at most is not looked at",
        "learner_jax/protocol/coordinator.py",
        "elif early and size > self._limit:",
        "elif early and size > 2**40:",
        (*_MALFORMED, "-k", "replayed"),
    ),
    Plant(
        "transfer: memory is set aside for what is claimed",
        "learner_jax/protocol/transfers.py",
        "new = self._hashed <= index < self._next and index not in self._ahead",
        "new = self._hashed <= index and index not in self._ahead",
        ("tests/protocol/test_transfers.py",),
    ),
    Plant(
        "transfer: the digest is not compared",
        "learner_jax/protocol/transfers.py",
        "if got != self.blob.digest:",
        "if got is self.blob:",
        ("tests/protocol/test_transfers.py",),
    ),
    # ---- through a proxy
    Plant(
        "tunnel: any answer of a proxy is taken for a yes",
        "learner_jax/network/tunnel.py",
        "if 200 <= code < 300:",
        "if code:",
        _TUNNEL,
    ),
    Plant(
        "tunnel: the end of one side ends both",
        "learner_jax/network/tunnel.py",
        "if sink.can_write_eof():",
        "if sink is None:",
        _TUNNEL,
    ),
    Plant(
        "tunnel: reads on from a side whose other side does not read",
        "learner_jax/network/tunnel.py",
        "await sink.drain()",
        "await asyncio.sleep(0)",
        _TUNNEL,
    ),
    Plant(
        "tunnel: a proxy's password is in what is said of it",
        "learner_jax/network/tunnel.py",
        'return f"the proxy at {_place(self.host, self.port)}"',
        'return f"the proxy at {_place(self.host, self.port)}{self.password}"',
        _TUNNEL,
    ),
    Plant(
        "tunnel: what a proxy answers has no limit",
        "learner_jax/network/tunnel.py",
        'if not lines[0].startswith("HTTP/") or left < 0:',
        'if not lines[0].startswith("HTTP/"):',
        _TUNNEL,
    ),
    Plant(
        "tunnel: a refusal ends a site whose line was open before",
        "learner_jax/network/links.py",
        "if trouble.final and not self._ever:",
        "if trouble.final:",
        _TUNNEL,
    ),
    Plant(
        "tunnel: a handshake leaves a slow proxy no time",
        "learner_jax/network/links.py",
        "HANDSHAKE_MS + int(1000 * self._via.timeout_s)",
        "HANDSHAKE_MS",
        _TUNNEL,
    ),
    Plant(
        "tunnel: a worker joins through it and then dials past it",
        "learner_jax/engines/worker.py",
        "with through(proxy, member.address, say) as via,",
        "with through(None, member.address, say) as via,",
        ("tests/federation/test_parity.py", "-k", "through_a_proxy"),
    ),
    # ---- what a doctor finds
    Plant(
        "doctor: a closed port is well",
        "learner_jax/engines/doctor.py",
        "probe.knock(host, port, DIAL_S)",
        "host_and_port(caller.address)",
        _DOCTOR,
    ),
    Plant(
        "doctor: a key that is not known is well",
        "learner_jax/engines/doctor.py",
        "yield Finding(wrong, MEND, str(error))",
        'yield Finding(wrong, OK if wrong == "key" else MEND, str(error))',
        _DOCTOR,
    ),
    Plant(
        "doctor: a clock that is behind is well",
        "learner_jax/engines/doctor.py",
        "if abs(ahead) < CLOCK_S:",
        "if ahead < CLOCK_S:",
        _DOCTOR,
    ),
    Plant(
        "doctor: a full disk is well",
        "learner_jax/engines/doctor.py",
        "    if left < ROOM:\n",
        "    if left < 0:\n",
        _DOCTOR,
    ),
    Plant(
        "doctor: a disk is not written to",
        "learner_jax/engines/doctor.py",
        "if left >= ROOM:",
        "if left < 0:",
        _DOCTOR,
    ),
    Plant(
        "doctor: a table is not held against the study",
        "learner_jax/engines/doctor.py",
        'return Finding("data", OK, fits(path))',
        'return Finding("data", OK, f"{path} fits what the study readmission asks for")',
        _DOCTOR,
    ),
    Plant(
        "doctor: uses the join code up",
        "learner_jax/network/probe.py",
        "m.encode(m.Ask(caller.study)), time.monotonic() + ASK_S",
        'm.encode(m.Enrol(caller.study, "h00", "x" * 40, bytes(32))), time.monotonic() + ASK_S',
        _DOCTOR,
    ),
    Plant(
        "doctor: its question is a message of the round",
        "learner_jax/network/drive.py",
        "if isinstance(message, m.Ask):",
        "if message is None:",
        _DOCTOR,
    ),
    # ---- what a run leaves from the start
    Plant(
        "begun: the config is written at the end alone",
        "learner_jax/engines/begun.py",
        '    write_bytes(folder / "config.json", study.to_json().encode())\n',
        "",
        _BEGUN,
    ),
    Plant(
        "begun: a checksum is of a file's name",
        "learner_jax/engines/begun.py",
        "            found.update(chunk)",
        "            found.update(path.name.encode())",
        _BEGUN,
    ),
    Plant(
        "machine: XLA's flags are forgotten",
        "learner_jax/engines/outcome.py",
        'os.environ.get("XLA_FLAGS", "")',
        '""',
        _BEGUN,
    ),
    Plant(
        "manifest: sites are told the path of the coordinator's data",
        "learner_jax/specs/study.py",
        "name = Path(study.data.source).name",
        "name = study.data.source",
        (*_BEGUN, "-k", "not_where_they_lie"),
    ),
    Plant(
        "--noresume: a federation goes on in silence",
        "learner_jax/api.py",
        "    if not resume and (folder",
        "    if not resume and study.references and (folder",
        (*_BEGUN, "-k", "noresume"),
    ),
    # ---- what a site sees of its own part
    Plant(
        "site: its last line knows no rounds",
        "learner_jax/engines/worker.py",
        '            "rounds": self._answers.rounds,\n',
        "",
        _AT_A_SITE,
    ),
    Plant(
        "site: a round answered again after a restart counts twice",
        "learner_jax/engines/answers.py",
        " and number > self._last:",
        ":",
        (*_AT_A_SITE, "-k", "counted_once"),
    ),
    Plant(
        "site: no line for a round that it answered",
        "learner_jax/cli/sentences.py",
        'event.kind in ("start", "site_done", "done"):',
        'event.kind in ("start", "done"):',
        _AT_A_SITE,
    ),
    Plant(
        "site: its bar stands still",
        "learner_jax/cli/board.py",
        "            elif own_answer(event):\n                own(event)\n",
        "",
        (*_AT_A_SITE, "-k", "bar"),
    ),
    # ---- survival
    Plant(
        "survival: the port opens before it knows the roster",
        "learner_jax/engines/serving.py",
        "line = _listen(folder, host, port, keys, desk.roster.users())",
        "line = _listen(folder, host, port, keys, {})",
        _RESTART,
    ),
    Plant(
        "survival: updates are swept with the newest step, not the oldest",
        "learner_jax/engines/coordinator.py",
        "stores.journal.accepted(after=oldest)",
        "stores.journal.accepted(after=oldest + 1)",
        ("tests/federation/test_failpoints.py", "-k", "sample"),
    ),
    Plant(
        "survival: a failpoint has another name on the page",
        "docs/survival.md",
        "| `coordinator.steps.mid_prune` |",
        "| `coordinator.steps.mid_sweep` |",
        ("tests/test_failpoint_names.py",),
    ),
    Plant(
        "survival: a point is armed in a worker that is started again",
        "learner_jax/failpoints.py",
        "return rest if again or not own",
        "return rest if not own",
        ("tests/test_failpoint_names.py",),
    ),
    Plant(
        "steps: a write that ends after its save prints a traceback",
        "learner_jax/storage/quiet_orbax.py",
        'str(raised.exc_value) == "Event loop is closed"',
        'str(raised.exc_value) == "another"',
        ("tests/storage/test_steps.py", "-k", "ends_after"),
    ),
    Plant(
        "survival: a step about to be replaced is thrown away",
        "learner_jax/storage/steps.py",
        "replaced.rename(path)\n\n",
        "shutil.rmtree(replaced)\n\n",
        ("tests/storage/test_steps.py", "-k", "about_to_be_replaced"),
    ),
    Plant(
        "survival: the bytes of an acknowledged update are gone at once",
        "learner_jax/storage/outbox.py",
        "return None if found is None or len(found.data) != found.entry.size else (found.entry, found.data)",
        "return None",
        ("tests/storage/test_outbox.py",),
    ),
    Plant(
        "survival: a site does not send again what the coordinator lost",
        "learner_jax/protocol/site.py",
        "self._newest, self._entry, self.job = opened, kept, Job.OFFERING\n        self._offer(None)",
        "self._newest = opened",
        ("tests/protocol/test_site.py",),
    ),
    Plant(
        "survival: a round closes without what was accepted and lost",
        "learner_jax/protocol/coordinator.py",
        " or not set(open_round.start.again) <= set(accepted):",
        ":",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "survival: an update of a later round waits for ever",
        "learner_jax/protocol/coordinator.py",
        "elif self._round is not None and _order(place) > _order(self._round.place):",
        "elif self._round is not None and _order(place) > (10**9, 0):",
        ("tests/protocol/test_coordinator.py",),
    ),
    Plant(
        "survival: a round is worked on with the state of a later one",
        "learner_jax/engines/worker.py",
        'if state and asked.phase == "train" and entry.round >= asked.round:',
        'if state and asked.phase == "train" and entry.round >= asked.round + 10**6:',
        _RESTART,
    ),
    Plant(
        "a full disk ends a site",
        "learner_jax/storage/outbox.py",
        'raise StorageError(f"expected to commit an update',
        'raise OSError(f"expected to commit an update',
        _FULL,
    ),
    Plant(
        "a full disk ends a coordinator",
        "learner_jax/network/drive.py",
        "self._events.append(c.Failed(command, str(error)))",
        "raise",
        _FULL,
    ),
    Plant(
        "a full disk is not waited for",
        "learner_jax/storage/patience.py",
        "            time.sleep(retry_s)",
        "            raise",
        ("tests/storage/test_patience.py",),
    ),
    Plant(
        "a full disk cuts a line of metrics.jsonl",
        "learner_jax/engines/metrics_log.py",
        "            file.truncate(before)\n",
        "",
        ("tests/engines/test_metrics_log.py",),
    ),
    Plant(
        "backup: is not looked at before it is written",
        "learner_jax/storage/backup.py",
        "        if missing is None:\n",
        "        if trial == 0:\n",
        _BACKUP,
    ),
    Plant(
        "backup: holds the sites' tables",
        "learner_jax/storage/backup.py",
        '_FOLDERS = ("join", "broker", "model")',
        '_FOLDERS = ("join", "broker", "model", "sites")',
        _BACKUP,
    ),
    Plant(
        "backup: everybody may read the keys",
        "learner_jax/storage/backup.py",
        "mode = _MODES[bool(stat.S_IMODE(about.st_mode) & 0o044)]",
        "mode = _MODES[1]",
        _BACKUP,
    ),
    Plant(
        "restore: a name may lead out of the folder",
        "learner_jax/storage/backup.py",
        "if not all(_PART.fullmatch(part) for part in parts)",
        "if not all(part for part in parts)",
        _BACKUP,
    ),
    Plant(
        "restore: digests are not compared",
        "learner_jax/storage/backup.py",
        'if digest.hexdigest() != one["sha256"]:',
        'if digest.hexdigest() == one["size"]:',
        _BACKUP,
    ),
    Plant(
        "restore: the coordinator is no newer than the one before",
        "learner_jax/storage/backup.py",
        "epoch = max(int(time.time()) - _SINCE, (seen or 0) + 1)",
        "epoch = (seen or 0) + 1",
        _BACKUP,
    ),
    Plant(
        "restore: what is in the folder is written over",
        "learner_jax/storage/backup.py",
        "if workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir())):",
        "if workdir.exists() and not workdir.is_dir():",
        _BACKUP,
    ),
    Plant(
        "compare: --out writes nothing",
        "learner_jax/cli/main.py",
        "        doors.compare_page(results, parsed.words, Path(out))\n",
        "        pass\n",
        ("tests/cli/test_main.py", "-k", "report_and_compare"),
    ),
    # ---- what is said to people
    Plant(
        "report: the whole run's time is told as that of the rounds",
        "learner_jax/reports/words.py",
        'took = float(result.get("seconds") or 0) if took is None else took',
        'took = float(result.get("seconds") or 0)',
        ("tests/reports/test_words.py", "-k", "rounds_own_time"),
    ),
    Plant(
        "report: the dashed line does not say that it is of held-back rows",
        "learner_jax/reports/by_round.py",
        "{_alone(result, noun) if len(refs) > 1 else ''}",
        "",
        ("tests/reports/test_page.py", "-k", "curve_and_the_line"),
    ),
    Plant(
        "headline: a site alone, within sites, stands beside the joint model of all rows",
        "learner_jax/reports/html.py",
        'both = [figure(mean, model, "auroc") for model in',
        'both = [figure(mean if model == "local_only" else cohort["all"], model, "auroc") for model in',
        ("tests/reports/test_page.py", "-k", "same_measure"),
    ),
    Plant(
        "headline: the average site's rows are those of all sites",
        "learner_jax/reports/words.py",
        'sum(site.get("rows") or 0 for site in judged))',
        'sum(site.get("rows") or 0 for site in sites))',
        ("tests/reports/test_page.py", "-k", "sites_that_are_judged"),
    ),
    Plant(
        "report: what sites judged and kept is said not to be judged",
        "learner_jax/reports/result.py",
        "return bool(judged) and not told and any(",
        "return bool(judged) and told and any(",
        ("tests/reports/test_tripod.py", "-k", "kept_at_home"),
    ),
    Plant(
        "report: subgroups that were asked for vanish where none can be told",
        "learner_jax/reports/parted.py",
        "if judged and asked else None",
        "if judged and not asked else None",
        ("tests/reports/test_parted.py", "-k", "asked_for"),
    ),
    Plant(
        "report: a curve of three rows is told firmly",
        "learner_jax/reports/result.py",
        "return found is not None and min(found[1], found[0] - found[1]) < ENOUGH",
        "return False",
        ("tests/reports/test_words.py", "-k", "too_few_watching"),
    ),
    Plant(
        "report: the highest few are told of a handful",
        "learner_jax/reports/acted.py",
        'if enough and one["share"] * rows >= ENOUGH]',
        "if enough]",
        ("tests/reports/test_words.py", "-k", "highest_few"),
    ),
    Plant(
        "report: no better than a coin where nothing could be judged",
        "learner_jax/reports/words.py",
        'if total and found["too few to judge"] == total:',
        "if not total:",
        ("tests/reports/test_words.py", "-k", "no_site_can_be_judged"),
    ),
    Plant(
        "report: on a phone a cell does not say of which column it is",
        "learner_jax/reports/page/parts.html",
        '<td class="num" role="cell" data-label="{{ labels[loop.index0] }}">{{ c }}</td>',
        '<td class="num" role="cell">{{ c }}</td>',
        ("tests/reports/test_included.py", "-k", "on_a_phone"),
    ),
    Plant(
        "report: a Brier score is told of a site that is not judged",
        "learner_jax/reports/by_site.py",
        'if not last and not figure(site, joint(site), "auroc"):',
        "if False:",
        ("tests/reports/test_page.py", "-k", "not_judged"),
    ),
    Plant(
        "progress: what was watched is told of the round after",
        "learner_jax/cli/sentences.py",
        'f" after round {number - 1}" if number > 1',
        'f" after round {number}" if number > 1',
        ("tests/cli/test_progress.py",),
    ),
    # ---- who is in it, what the data looked like, TRIPOD+AI
    Plant(
        "who: a cohort file is told of a table that was changed since",
        "learner_jax/data/cohort_file.py",
        "        if not same:",
        "        if not same and not found:",
        ("tests/data/test_cohort_file.py", "-k", "one_table_alone"),
    ),
    Plant(
        "who: whoever may log in can read a cohort file",
        "learner_jax/cli/doors.py",
        "write_json(beside, facts, mode=0o600)",
        "write_json(beside, facts)",
        ("tests/data/test_cohort_file.py", "-k", "command_writes"),
    ),
    Plant(
        "who: a cohort file holds a row's patient",
        "learner_jax/data/cohort_file.py",
        '"notes": [*cohort.notes, *notes],',
        '"notes": [*cohort.notes, *notes, f"first: {cohort.stays[0].patient} ."],',
        ("tests/data/test_cohort_file.py", "-k", "nobody"),
    ),
    Plant(
        "who: cohort files of tables that have no part in the study are shown",
        "learner_jax/engines/sources.py",
        "files = [path for path in files if path.stem in data.sites]",
        "files = list(files)",
        ("tests/federation/test_from_records.py", "-k", "tables_rows_were_chosen"),
    ),
    Plant(
        "who: a folder's cohort file is taken for a table",
        "learner_jax/data/tables.py",
        'SUFFIXES = (".csv", ".parquet")',
        'SUFFIXES = (".csv", ".parquet", ".json")',
        ("tests/data/test_cohort_file.py", "-k", "no_table"),
    ),
    Plant(
        "who: a federation shows a cohort's counts",
        "learner_jax/reports/included.py",
        'if result.get("kind") == "federation":',
        'if result.get("kind") == "federation" and not result.get("data"):',
        ("tests/reports/test_included.py", "-k", "of_a_federation"),
    ),
    Plant(
        "who: a step that a site did not need leaves nobody there",
        "learner_jax/reports/included.py",
        "left = own.get(words, left)",
        "left = own.get(words, (0, 0))",
        ("tests/reports/test_included.py", "-k", "sum_is_that"),
    ),
    Plant(
        "inputs: a figure of nine rows is told",
        "learner_jax/data/described.py",
        "FEWEST = 10",
        "FEWEST = 9",
        ("tests/tasks/test_described.py", "-k", "ten_are"),
    ),
    Plant(
        "inputs: that all but a few have it is told to the last row",
        "learner_jax/data/described.py",
        "round(known * (1.0 - mean)) < FEWEST",
        "round(known * (1.0 - mean)) < 0",
        ("tests/tasks/test_described.py", "-k", "ten_are or few_rows"),
    ),
    Plant(
        "inputs: a row that a long table folds is lost",
        "learner_jax/reports/inputs.py",
        '"rest": inputs[shown:],',
        '"rest": inputs[shown + 1 :],',
        ("tests/reports/test_included.py", "-k", "long_tables"),
    ),
    Plant(
        "TRIPOD+AI: intervals are claimed that were not computed",
        "learner_jax/reports/tripod.py",
        'return any("low" in told and "high" in told for told in _figures(run).values())',
        "return bool(_figures(run))",
        ("tests/reports/test_tripod.py", "-k", "without_bootstrap"),
    ),
    Plant(
        "TRIPOD+AI: calibration is claimed that was not measured",
        "learner_jax/reports/tripod.py",
        'groups"] if groups else []',
        'groups"] if judged else []',
        ("tests/reports/test_tripod.py", "-k", "without_bootstrap"),
    ),
    Plant(
        "TRIPOD+AI: judged at sites that are too small to judge",
        "learner_jax/reports/tripod.py",
        'each = [one for one in sites if figure(one, joint(one), "auroc")]',
        "each = list(sites)",
        ("tests/reports/test_tripod.py", "-k", "judged_at_sites"),
    ),
    Plant(
        "TRIPOD+AI: an item is left out",
        "learner_jax/reports/tripod.py",
        '        "20c": "Predictors in evaluation against training data",\n',
        "",
        ("tests/reports/test_tripod.py", "-k", "all_items"),
    ),
    Plant(
        "a learning rate that says nothing is let in",
        "learner_jax/specs/check.py",
        "problems += twice(fitted, name, where, fields[name].default)",
        "problems += []",
        ("tests/test_specs.py", "-k", "rate_beside"),
    ),
    Plant(
        "api: rows that the model does not take are not looked at",
        "learner_jax/api.py",
        "    check_fit(parts, data)\n",
        "",
        ("tests/test_doors_of_api.py", "-k", "hands_over"),
    ),
    Plant(
        "unended: a message may go on for ever",
        "learner_jax/network/unended.py",
        "ahead > ALLOWED + more + _buffered(connection)",
        "ahead < 0",
        ("tests/network/test_unended.py", "-k", "without_an_end"),
    ),
    Plant(
        "unended: bytes of CURVE are not counted",
        "learner_jax/network/unended.py",
        "return secured + (2 if secured <= 255 else 9)",
        "return secured + (2 if secured < 255 else 9)",
        ("tests/network/test_unended.py", "-k", "to_the_byte"),
    ),
    Plant(
        "unended: what waits to be taken counts as unended",
        "learner_jax/network/unended.py",
        "return self._waiting if",
        "return 0 if",
        ("tests/network/test_unended.py", "-k", "all_that_may_wait"),
    ),
    Plant(
        "unended: an old connection's reports are heard after the first message of a new one",
        "learner_jax/network/unended.py",
        "        self._hear()  # first: a new connection may have an old one's number\n",
        "",
        ("tests/network/test_unended.py", "-k", "come_and_go"),
    ),
    Plant(
        "unended: a number that was used again is taken for the old connection",
        "learner_jax/network/unended.py",
        "if ends is None or (line is not None and ends != line):",
        "if ends is None:",
        ("tests/network/test_unended.py", "-k", "left_alone"),
    ),
    Plant(
        "codes: an earlier one for the same site stays good",
        "learner_jax/network/keys.py",
        "        codes, proofs = self._without_codes(self.codes_for(name))\n        codes, proofs = {",
        "        codes, proofs = self.codes, self.proofs\n        codes, proofs = {",
        ("tests/network/test_enrol.py", "-k", "earlier_one"),
    ),
    Plant(
        "codes: one that is left lets a revoked site in",
        "learner_jax/network/keys.py",
        "        if name in self.revoked:\n",
        "        if False:\n",
        ("tests/network/test_enrol.py", "-k", "no_code_that_was_left"),
    ),
    Plant(
        "codes: one that was lost cannot be withdrawn",
        "learner_jax/engines/requests.py",
        " or desk.roster.codes_for(site):",
        ":",
        ("tests/network/test_enrol.py", "-k", "withdrawn"),
    ),
    Plant(
        "keys: another site's next ones are free",
        "learner_jax/network/keys.py",
        "for both in (self.sites, self.next) for known in both.values()} | set(self.codes)\n        if site",
        "for both in (self.sites,) for known in both.values()} | set(self.codes)\n        if site",
        ("tests/network/test_enrol.py", "-k", "goes_over_to"),
    ),
    Plant(
        "spool: giving up on a read-only disk is an error of its own",
        "learner_jax/storage/spool.py",
        "    with contextlib.suppress(OSError):\n        path.unlink(missing_ok=True)",
        "    path.unlink(missing_ok=True)",
        ("tests/engines/test_odd_days.py", "-k", "given_up_on_a_disk"),
    ),
    Plant(
        "coordinator: what cannot be read now is taken for lost",
        "learner_jax/engines/coordinator.py",
        "patiently(functools.partial(self._read_whole, digest), self.note)\n            except CorruptError",
        "self._read_whole(digest)\n            except StorageError",
        ("tests/engines/test_odd_days.py", "-k", "waited_for"),
    ),
    Plant(
        "coordinator: a lost update is removed though it cannot be sent again",
        "learner_jax/engines/coordinator.py",
        "        if found and buffered:\n",
        "        for digest in found.values():\n            self._drop(digest)\n        if found and buffered:\n",
        ("tests/engines/test_odd_days.py", "-k", "not_in_a_buffered"),
    ),
    Plant(
        "coordinator: a round goes on with another broadcast",
        "learner_jax/engines/coordinator.py",
        "if accepted and before[0].broadcast != asked.data.sha256:",
        "if False:",
        ("tests/engines/test_odd_days.py", "-k", "broadcast_is_another"),
    ),
    Plant(
        "links: a relay that hangs up ends a member",
        "learner_jax/network/links.py",
        "self._hung_up >= 3 and time.monotonic() - self._first_hung_up >= self._hung_up_s",
        "self._hung_up >= 3",
        ("tests/network/test_links.py", "-k", "relay"),
    ),
    Plant(
        "backup: a file that cannot be put back is taken",
        "learner_jax/storage/backup.py",
        "if not all(_PART.fullmatch(part) for part in name.parts):",
        "if False:",
        ("tests/storage/test_backup.py", "-k", "runs_own"),
    ),
    Plant(
        "broker: one site's answers take the others' share",
        "learner_jax/engines/broker.py",
        "f\"{user} to {to.decode('ascii', 'replace')}\" if to else user",
        "user",
        ("tests/network/test_brokered.py", "-k", "share"),
    ),
    Plant(
        "revoked: who is away holds the round",
        "learner_jax/protocol/coordinator.py",
        '        self._step(event.site, "gone")  # also of who was gone before\n',
        "",
        ("tests/protocol/test_coordinator.py", "-k", "was_away_while"),
    ),
    Plant(
        "words: a site's reason makes lines of its own",
        "learner_jax/cli/sentences.py",
        'letter if letter.isprintable() else " "',
        "letter",
        ("tests/cli/test_progress.py", "-k", "no_line_of_its_own"),
    ),
    Plant(
        "features: what comes after the discharge enters",
        "learner_jax/data/features.py",
        'f"WHERE {KNOWN_AT} <= s.discharge AND',
        'f"WHERE {KNOWN_AT} <= s.discharge + to_days(30) AND',
        ("tests/data/test_features.py", "-k", "later_enters"),
    ),
    Plant(
        "features: later stays count as earlier ones",
        "learner_jax/data/features.py",
        '"AND x.discharge <= s.admit GROUP BY',
        '"GROUP BY',
        ("tests/data/test_features.py", "-k", "later_enters"),
    ),
    Plant(
        "features: a diagnosis is known when it is stamped",
        "learner_jax/data/features.py",
        "ELSE greatest(e.time, c.discharge)",
        "ELSE coalesce(e.time, c.discharge)",
        ("tests/data/test_features.py", "-k", "by_hand"),
    ),
    Plant(
        "features: both groups of one disease count",
        "learner_jax/data/features.py",
        '"diabetes": "diabetes_complicated",',
        "",
        ("tests/data/test_features.py", "-k", "by_hand"),
    ),
    Plant(
        "features: LACE takes a fortnight for a week",
        "learner_jax/data/features.py",
        "5 if length < 14 else 7",
        "5 if length <= 14 else 7",
        ("tests/data/test_features.py", "-k", "lace_by"),
    ),
    Plant(
        "features: diagnoses of years ago count",
        "learner_jax/data/features.py",
        "AND {KNOWN_AT} >= s.admit - to_days({lookback_days})",
        "AND {KNOWN_AT} IS NOT NULL",
        ("tests/data/test_features.py", "-k", "by_hand"),
    ),
    Plant(
        "features: who died stands in the file",
        "learner_jax/data/features.py",
        "if stay.outcome not in (READMITTED, NOT_READMITTED):",
        "if False:",
        ("tests/data/test_features.py", "-k", "command"),
    ),
    Plant(
        "elixhauser: both tumours count",
        "learner_jax/data/features.py",
        '    "elixhauser_solid_tumour": "elixhauser_metastatic",\n',
        "",
        ("tests/data/test_elixhauser.py", "-k", "several_codes"),
    ),
    Plant(
        "elixhauser: a heart that stands still is an arrhythmia",
        "configs/codes/elixhauser.csv",
        "ICD9CM,427.4,prefix,arrhythmia,5",
        "ICD9CM,427.5,prefix,arrhythmia,5",
        ("tests/data/test_elixhauser.py", "-k", "each_group"),
    ),
    Plant(
        "elixhauser: a weight without its sign",
        "configs/codes/elixhauser.csv",
        "ICD9CM,278.0,prefix,obesity,-4",
        "ICD9CM,278.0,prefix,obesity,4",
        ("tests/data/test_elixhauser.py",),
    ),
    Plant(
        "medicines: days are counted to the day before the discharge",
        "learner_jax/data/medicines.py",
        "FILTER (t.name = '{0}'), s.discharge) / 86400",
        "FILTER (t.name = '{0}'), s.discharge - to_days(1)) / 86400",
        ("tests/data/test_medicines.py", "-k", "days_by_hand"),
    ),
    Plant(
        "medicines: one of an earlier stay is of this one",
        "learner_jax/data/medicines.py",
        "coalesce(bool_or(t.within) FILTER",
        "coalesce(bool_or(TRUE) FILTER",
        ("tests/data/test_medicines.py", "-k", "days_by_hand"),
    ),
    Plant(
        "medicines: a dose that was not given counts",
        "learner_jax/data/medicines.py",
        "NOT(GIVEN|APPLIED",
        "NOT(OFFERED|APPLIED",
        ("tests/data/test_medicines.py", "-k", "not_given"),
    ),
    Plant(
        "medicines: a word is found within others",
        "learner_jax/data/medicines.py",
        'rf"\\b({_any(one.words)})"',
        'rf"({_any(one.words)})"',
        ("tests/data/test_medicines.py", "-k", "called"),
    ),
    Plant(
        "medicines: what a name may not hold is not asked",
        "learner_jax/data/medicines.py",
        "AND NOT (w.without <> '' AND",
        "AND NOT (FALSE AND",
        ("tests/data/test_medicines.py", "-k", "called"),
    ),
    Plant(
        "recency: windows end at the admission",
        "learner_jax/data/features.py",
        "k.last >= s.discharge - to_days({1})",
        "k.last >= s.admit - to_days({1})",
        ("tests/data/test_medicines.py", "-k", "counts_and_days"),
    ),
    Plant(
        "recency: codes of the stay are of before it",
        "learner_jax/data/features.py",
        "FILTER (NOT here AND moment < admit AND",
        "FILTER (TRUE AND",
        ("tests/data/test_medicines.py", "-k", "counts_and_days"),
    ),
    Plant(
        "recency: what is stamped by the day is of before",
        "learner_jax/data/features.py",
        "_BY_THE_DAY = \"moment = date_trunc('day', admit)\"",
        '_BY_THE_DAY = "FALSE"',
        ("tests/data/test_medicines.py",),
    ),
    Plant(
        "fhir: a medicine that is named by reference is lost",
        "learner_jax/data/doors/fhir.py",
        '"WHEN len(m.parts) > 0 THEN m.parts "',
        '""',
        ("tests/data/test_medicines.py", "-k", "many_ways"),
    ),
    Plant(
        "fhir: a medicine within its request is lost",
        "learner_jax/data/doors/fhir.py",
        "WHEN starts_with(reference, '#') \"",
        'WHEN FALSE "',
        ("tests/data/test_medicines.py", "-k", "many_ways"),
    ),
    Plant(
        "omop: a concept's name is not read",
        "learner_jax/data/doors/omop.py",
        "unnest([own.name, std.name, {value}])",
        "unnest([{value}])",
        ("tests/data/test_medicines.py", "-k", "omop"),
    ),
    Plant(
        "newton: intercepts are shrunk too",
        "learner_jax/algorithms/newton.py",
        "jnp.full(leaf.shape, leaf.ndim > 1, leaf.dtype)",
        "jnp.ones_like(leaf)",
        ("tests/algorithms/test_newton.py", "-k", "one_place"),
    ),
    Plant(
        "newton: sites count alike, however many rows they have",
        "learner_jax/algorithms/newton.py",
        "return Report(update, rows, {",
        "return Report(update, jnp.minimum(rows, 1), {",
        ("tests/algorithms/test_newton.py", "-k", "one_place"),
    ),
    Plant(
        "newton: never steps back",
        "learner_jax/algorithms/newton.py",
        "| (server.halved >= HALVINGS)",
        "| True",
        ("tests/algorithms/test_newton.py", "-k", "fly_off"),
    ),
    Plant(
        "features: a stay without an end is known at once",
        "learner_jax/data/features.py",
        "AND c.discharge IS NULL THEN NULL",
        "AND FALSE THEN NULL",
        ("tests/data/test_features.py", "-k", "nobody_says"),
    ),
    Plant(
        "fhir: an emergency visit that is part of a stay is thrown away",
        "learner_jax/data/doors/fhir.py",
        """OR whole.class IS DISTINCT FROM 'EMER') THEN 'emergency'""",
        """OR whole.class IS DISTINCT FROM 'EMER') THEN 'other'""",
        ("tests/data/test_features.py", "-k", "part_of_a_stay"),
    ),
    Plant(
        "fhir: which stay an emergency visit led to is not kept",
        "learner_jax/data/features.py",
        "CASE WHEN u.led IS NOT NULL THEN u.led = s.encounter ",
        "CASE WHEN FALSE THEN FALSE ",
        ("tests/data/test_features.py", "-k", "part_of_a_stay"),
    ),
    Plant(
        "features: codes that no group has are as good as health",
        "learner_jax/data/features.py",
        "HAVING coalesce(bool_or({ours}), FALSE) OR",
        "HAVING count(x.stay) > 0 OR",
        ("tests/data/test_features.py", "-k", "code_that_can_be_read"),
    ),
    Plant(
        "features: who has no diagnosis is not known to be well",
        "learner_jax/data/features.py",
        "(count(x.stay) = 0 AND {used})",
        "FALSE",
        ("tests/data/test_features.py", "-k", "code_that_can_be_read"),
    ),
    Plant(
        "features: records without medicines say that nobody took one",
        "learner_jax/data/features.py",
        "*(of_drugs[: len(drugs)] if dosed else ())",
        "*of_drugs[: len(drugs)]",
        ("tests/data/test_features.py", "-k", "records_without_any"),
    ),
    Plant(
        "features: one patient's file tells what the hospital records",
        "learner_jax/data/features.py",
        "dosed, visited = alone or _held(records, *_MEDICINE), alone or seen",
        "dosed, visited = _held(records, *_MEDICINE), seen",
        (*_PREDICT, "-k", "one_patient_s_bundle"),
    ),
    Plant(
        "predict: a value that no site had moves the chance",
        "learner_jax/tasks/table.py",
        "            series = series * np.nan",
        "            pass",
        (*_PREDICT, "-k", "no_site_had"),
    ),
    Plant(
        "features: a medicine of later makes the others known",
        "learner_jax/data/features.py",
        "x.kind = 'medicine' AND coalesce(x.time, last) <= last",
        "x.kind = 'medicine'",
        ("tests/data/test_features.py", "-k", "medicines_of_records_without_any"),
    ),
    Plant(
        "features: records without emergency visits say that there were none",
        "learner_jax/data/features.py",
        'FILTER (NOT {_OWN})" if visited else "NULL"',
        'FILTER (NOT {_OWN})" if True else "NULL"',
        ("tests/data/test_features.py", "-k", "visits_of_records_without_any"),
    ),
    Plant(
        "features: a stay that no recorded visit led to may have begun with one",
        "learner_jax/data/features.py",
        "THEN {0 if seen else 'NULL'} ",
        "THEN {'NULL'} ",
        ("tests/data/test_features.py", "-k", "visits_of_records_without_any"),
    ),
    Plant(
        "cohort: features of nobody are written",
        "learner_jax/cli/doors.py",
        "if features is not None and not found.stays:",
        "if features is not None and found.stays is None:",
        ("tests/data/test_features.py", "-k", "empty_cohort"),
    ),
    Plant(
        "attrition: how well LACE tells is said of one event",
        "learner_jax/reports/attrition.py",
        "if min(events, len(pairs) - events) < ENOUGH:",
        "if min(events, len(pairs) - events) < 1:",
        ("tests/data/test_features.py", "-k", "of_a_few"),
    ),
    Plant(
        "report: stays that were merged are left out",
        "learner_jax/reports/included.py",
        "' merged' if words.endswith(AS_ONE) else ''",
        "''",
        ("tests/reports/test_included.py", "-k", "merged_are_not"),
    ),
    Plant(
        "medicines: a local anaesthetic with epinephrine is an inotrope",
        "configs/codes/medicines.csv",
        "WORD,caine,without,inotrope\n",
        "",
        ("tests/data/test_medicines.py", "-k", "tells_its_group"),
    ),
    Plant(
        "features: the visit that led to the stay is an earlier one",
        "learner_jax/data/features.py",
        "FILTER (NOT {_OWN})",
        "FILTER (TRUE)",
        ("tests/data/test_features.py", "-k", "led_to"),
    ),
    Plant(
        "coordinator: a disk that refuses once is damage",
        "learner_jax/engines/coordinator.py",
        "except (CorruptError, RemoteProtocolError) as error:\n            raise CorruptError(",
        "except (StorageError, RemoteProtocolError) as error:\n            raise CorruptError(",
        ("tests/engines/test_odd_days.py", "-k", "refuses_once_while"),
    ),
    Plant(
        "a tap writes in the clear for every user of the machine",
        "learner_jax/engines/tap.py",
        'open(path, "ab", opener=_private)',
        'open(path, "ab")',
        ("tests/engines/test_tap.py",),
    ),
    # ---- events in time, and what is not known
    Plant(
        "transformer: when an event was is not read",
        "learner_jax/models/transformer.py",
        'jnp.log1p(x["days"])[..., None]',
        '(0 * x["days"])[..., None]',
        ("tests/models/test_events_and_gaps.py", "-k", "order_of_events or only_time"),
    ),
    Plant(
        "transformer: places without an event are looked at",
        "learner_jax/models/transformer.py",
        "mask=there[:, None, None, :]",
        "mask=None",
        ("tests/models/test_events_and_gaps.py", "-k", "without_an_event"),
    ),
    Plant(
        "masked: what is not known is a zero",
        "learner_jax/models/masked.py",
        "known = ~jnp.isnan(x)",
        "x = jnp.nan_to_num(x)\n        known = ~jnp.isnan(x)",
        ("tests/models/test_events_and_gaps.py", "-k", "not_known"),
    ),
    Plant(
        "masked: values are hidden when it is asked, too",
        "learner_jax/models/masked.py",
        "if rngs is not None and self.hide > 0:",
        "if self.hide > 0:\n            rngs = rngs or nnx.Rngs(dropout=0)",
        ("tests/models/test_events_and_gaps.py", "-k", "hidden_while_training"),
    ),
    Plant(
        "masked: a model that cannot take gaps begins",
        "learner_jax/engines/parts.py",
        "        if not gaps:\n            return",
        "        return",
        ("tests/models/test_events_and_gaps.py", "-k", "cannot_take_gaps"),
    ),
    Plant(
        "events: the earliest are kept",
        "learner_jax/data/told_events.py",
        "if (at := place(code)) >= 0)[:latest]",
        "if (at := place(code)) >= 0)[-latest:]",
        ("tests/data/test_told_events.py", "-k", "latest"),
    ),
    Plant(
        "events: one after the prediction is taken",
        "learner_jax/data/told_events.py",
        '_EVENT = re.compile(r"(',
        '_EVENT = re.compile(r"-?(',
        ("tests/data/test_told_events.py", "-k", "refused"),
    ),
    # ---- predictions from records, a table and a form
    Plant(
        "cohort: a merged stay ends where a part before its last did",
        "learner_jax/data/cohorts.py",
        "arg_max_null(went,",
        "arg_max(went,",
        ("tests/data/test_cohorts.py", "-k", "several_parts"),
    ),
    Plant(
        "records beside polars: arms that differ go on",
        "benchmarks/records_polars.py",
        "if ours[name] != theirs[name]]",
        "if ours[name] is None]",
        ("tests/benchmarks/test_records_polars.py", "-k", "differ"),
    ),
    Plant(
        "predict: what came after the moment asked for is read",
        "learner_jax/data/stays.py",
        'f"WHERE e.time > ? OR {features.KNOWN_AT} > ?)", at, at,',
        'f"WHERE e.time > ? AND {features.KNOWN_AT} > ?)", at, at,',
        (*_PREDICT, "-k", "moment_within"),
    ),
    Plant(
        "predict: a stay's end is known before it is there",
        "learner_jax/data/stays.py",
        "SET discharge = NULL, discharged_to = NULL WHERE discharge > ?",
        "SET discharged_to = NULL WHERE discharge > ?",
        (*_PREDICT, "-k", "moment_within"),
    ),
    Plant(
        "predict: a stay is predicted as of the last record of its patient",
        "learner_jax/data/stays.py",
        "WHERE kind = 'stay' AND discharge IS NULL AND admit IS NOT NULL ",
        "WHERE kind = 'stay' AND admit IS NOT NULL ",
        (*_PREDICT, "-k", "moment_within"),
    ),
    Plant(
        "predict: now is the beginning of a stay that has not ended",
        "learner_jax/data/stays.py",
        "max(time) AS time FROM (SELECT",
        "min(time) AS time FROM (SELECT",
        (*_PREDICT, "-k", "has_not_ended"),
    ),
    Plant(
        "predict: a stay without an end is open though another follows",
        "learner_jax/data/stays.py",
        'records.sql("DELETE FROM opened WHERE NOT last")',
        "pass",
        (*_PREDICT, "-k", "left_out_is_told"),
    ),
    Plant(
        "predict: who died is told a chance to come back",
        "learner_jax/data/stays.py",
        "coalesce(went = 'died', FALSE) OR coalesce(death <= discharge, FALSE)",
        "FALSE",
        (*_PREDICT, "-k", "left_out_is_told"),
    ),
    Plant(
        "predict: features have more digits than the file",
        "learner_jax/data/stays.py",
        'float(f"{value:.10g}")',
        "float(value)",
        (*_PREDICT, "-k", "those_of_the_file"),
    ),
    Plant(
        "predict: transfers are stays of their own",
        "learner_jax/data/stays.py",
        "gap = GAP_HOURS if rule is None else rule.gap_hours",
        "gap = None",
        (*_PREDICT, "-k", "transfer"),
    ),
    Plant(
        "predict: nobody is beside the cohort",
        "learner_jax/data/stays.py",
        "out, left = left - kept, left & kept",
        "out, left = set(), left & kept",
        (*_PREDICT, "-k", "beside_the_cohort"),
    ),
    Plant(
        "predict: values out of range go to the model",
        "learner_jax/data/stays.py",
        "wrong |= (values < low) | (values > high)",
        "wrong |= (values < -np.inf) | (values > np.inf)",
        (*_PREDICT, "-k", "does_not_take"),
    ),
    Plant(
        "form: a misspelt name is passed over",
        "learner_jax/engines/forms.py",
        "elif column is None:",
        "elif column is None and False:",
        (*_PREDICT, "-k", "does_not_fit"),
    ),
    Plant(
        "form: what is not given is 0",
        "learner_jax/engines/forms.py",
        "cells = {c.name: pd.Series([known.get(c.name)]",
        "cells = {c.name: pd.Series([known.get(c.name, 0)]",
        (*_PREDICT, "-k", "form_gives or must_be_known"),
    ),
    Plant(
        "form: that no site had a value is not told",
        "learner_jax/engines/forms.py",
        "named = sorted(set(given) & _known_of(fitted, 0))",
        "named = []",
        (*_PREDICT, "-k", "no_site_had"),
    ),
    Plant(
        "form: an answer that does not fit is taken",
        "learner_jax/engines/forms.py",
        "return mine[0] if mine else None",
        "return None",
        ("tests/cli/test_predict.py", "-k", "asks_again"),
    ),
    # ---- subgroups
    Plant(
        "subgroups: one level alone is withheld",
        "learner_jax/evaluation/subgroups.py",
        "if not hidden.any() or (hidden.sum() > 1 and (counts[hidden].sum(axis=0) >= floor).all()):",
        "if True:",
        ("tests/evaluation/test_subgroups.py", "-k", "singled_out"),
    ),
    Plant(
        "subgroups: two small ones are withheld whose sum is small",
        "learner_jax/evaluation/subgroups.py",
        "(hidden.sum() > 1 and (counts[hidden].sum(axis=0) >= floor).all())",
        "hidden.sum() > 1",
        ("tests/evaluation/test_subgroups.py", "-k", "singled_out"),
    ),
    Plant(
        "subgroups: rows without the event are not counted",
        "learner_jax/evaluation/subgroups.py",
        "(counts >= floor).all(axis=1)",
        "(counts[:, :2] >= floor).all(axis=1)",
        ("tests/evaluation/test_subgroups.py", "-k", "singled_out"),
    ),
    Plant(
        "subgroups: they leave of each cohort",
        "learner_jax/evaluation/summary.py",
        'if ways and found[largest]["models"]:',
        "for largest in cohorts if ways else ():",
        ("tests/evaluation/test_subgroups.py", "-k", "largest_cohort"),
    ),
    Plant(
        "subgroups: what a site adds goes on",
        "learner_jax/evaluation/subgroups.py",
        'kept: dict[str, Any] = {"name": level["name"]}',
        "kept: dict[str, Any] = dict(level)",
        ("tests/evaluation/test_subgroups.py", "-k", "goes_no_further"),
    ),
    # ---- recalibration
    Plant(
        "recalibration: the spread is moved by few events",
        "learner_jax/evaluation/calibration.py",
        "size = 2 if min(events, rest) >= FOR_A_SLOPE and",
        "size = 2 if",
        ("tests/evaluation/test_recalibration.py", "-k", "intercept_alone"),
    ),
    Plant(
        "recalibration: a saved model forgets it",
        "learner_jax/engines/outcome.py",
        '**({} if moved is None else {"recalibration": moved._asdict()}),',
        "",
        ("tests/evaluation/test_recalibration.py", "-k", "is_saved"),
    ),
    Plant(
        "recalibration: contributions are those of before",
        "learner_jax/engines/trained.py",
        "found if self.moved is None else found * self.moved.slope",
        "found",
        ("tests/evaluation/test_recalibration.py", "-k", "is_saved"),
    ),
    Plant(
        "recalibration: a model that ranks the wrong way is turned round",
        "learner_jax/evaluation/calibration.py",
        "    if slope <= 0:",
        "    if False:",
        ("tests/evaluation/test_recalibration.py", "-k", "wrong_way"),
    ),
    Plant(
        "families: a code one beyond a range is in it",
        "learner_jax/data/families.py",
        "d.start BETWEEN f.first AND f.last",
        "d.start > f.first AND d.start <= f.last",
        ("tests/data/test_families.py", "-k", "features_of_a_stay"),
    ),
    Plant(
        "fhir: orders that were cancelled are medicines",
        "learner_jax/data/doors/fhir.py",
        "'cancelled', 'draft', ",
        "",
        ("tests/data/test_medicines.py", "-k", "many_ways"),
    ),
    Plant(
        "recalibration: errors do not know of patients",
        "learner_jax/evaluation/calibration.py",
        "of = np.stack([np.bincount(group, column) for column in each.T], axis=1)",
        "of = each",
        ("tests/evaluation/test_recalibration.py", "-k", "by_patient"),
    ),
    Plant(
        "subgroups: rows of one patient are many",
        "learner_jax/evaluation/subgroups.py",
        "return len(y), len(np.unique(group)), len(np.unique(group[y == 1])), len(np.unique(group[y == 0]))",
        "return len(y), len(y), int((y == 1).sum()), int((y == 0).sum())",
        ("tests/evaluation/test_subgroups.py", "-k", "patients_are_counted"),
    ),
    Plant(
        "histories: each result of an hour counts",
        "learner_jax/data/histories.py",
        "date_diff('day', {KNOWN_AT}, s.discharge) // {PERIOD_DAYS}), ",
        "{KNOWN_AT}), ",
        ("tests/data/test_histories.py", "-k", "hourly"),
    ),
    Plant(
        "contributions: what a gap adds is left out",
        "learner_jax/engines/trained.py",
        "* filled + self._of_gaps(x, filled)",
        "* filled",
        ("tests/models/test_events_and_gaps.py", "-k", "site_lacks"),
    ),
    Plant(
        "transformer: fewer places than codes are trained",
        "learner_jax/engines/parts.py",
        "places = len(timed.codes) or PLACES",
        "places = 1",
        ("tests/models/test_events_and_gaps.py", "-k", "fewer_places"),
    ),
    Plant(
        "predict: a stay whose model reads events ends in an error",
        "learner_jax/cli/predict.py",
        "with contextlib.suppress(DataError):",
        "with contextlib.suppress(KeyError):",
        ("tests/engines/test_predict_events.py",),
    ),
    *CELLS,
    *SPEED,
)


def text_of(plant: Plant, root: Path = ROOT) -> str:
    """The file that a plant changes.

    Raises:
      ValueError: its place is not there, or there more than once.
    """
    text = (root / plant.file).read_text()
    if text.count(plant.old) != 1:
        raise ValueError(f"{plant.name}: expected its place once in {plant.file}, got {text.count(plant.old)} times")
    return text


def copy_tree(to: Path) -> None:
    """Copies the files that git knows, or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    for name in listed.decode().split("\0")[:-1]:
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def command_of(plant: Plant) -> list[str]:
    """How its test is run."""
    first, *rest = plant.tests
    if rest and rest[0].isdigit():
        return [sys.executable, *plant.tests]
    return [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-n", "0", *plant.tests]


def ask(plant: Plant, tree: Path) -> tuple[bool, str]:
    """Runs a plant's test on the tree as it is.

    Returns:
      (whether it failed, its most telling line).
    """
    variables = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    command = command_of(plant)
    done = subprocess.run(command, cwd=tree, env=variables, capture_output=True, text=True, timeout=900, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    words = [line for line in said if line.startswith(("E  ", "FAILED", "AssertionError"))] or said[-1:]
    return done.returncode != 0, words[0].removeprefix("E").strip() if words else ""


def run(plant: Plant, tree: Path) -> tuple[bool, str]:
    """Plants a fault in a copy, runs its test, puts the place back.

    Returns:
      (whether it was noticed, the test's most telling line).
    """
    text = text_of(plant, tree)
    file = tree / plant.file
    try:
        file.write_text(text.replace(plant.old, plant.new))
        return ask(plant, tree)
    finally:
        file.write_text(text)


def main() -> int:
    """Runs the plants that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("words", nargs="*", help="run those whose name has one of these; all without any")
    words = parser.parse_args().words
    chosen = [plant for plant in PLANTS if not words or any(word in plant.name for word in words)]
    missed = []
    with tempfile.TemporaryDirectory(prefix="plants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        sound: dict[tuple[str, ...], bool] = {}
        for plant in chosen:
            if plant.tests not in sound:  # red without a fault would show nothing
                failed, said = ask(plant, tree)
                sound[plant.tests] = not failed
                if failed:
                    print(
                        f"{'BROKEN':<10}{' '.join(plant.tests)}, before anything was planted: {said[:160]}", flush=True
                    )
            if not sound[plant.tests]:
                missed.append(plant.name)
                continue
            begun = time.monotonic()
            noticed, said = run(plant, tree)
            missed += [] if noticed else [plant.name]
            took = time.monotonic() - begun
            print(f"{'red' if noticed else 'UNNOTICED':<10}{plant.name} ({took:.0f} s): {said[:160]}", flush=True)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} planted faults were noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
