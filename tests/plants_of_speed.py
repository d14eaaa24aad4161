"""Planted faults of what makes rounds fast and of what says how fast they are: see `tests.plants`, which runs them."""

from __future__ import annotations

from tests.plant import Plant

_PROFILER = ("tests/engines/test_profiler.py", "-k")
_PLANS = ("tests/data/test_plans.py", "-k")
_PROGRAM = ("tests/engines/test_program.py", "-k")
_CHOOSE = ("tests/engines/test_choose.py", "-k")
_ARMS = ("tests/benchmarks/test_benchmark_arms.py", "-k")

_COMPUTE = ("tests/engines/test_compute.py", "-k")
_KEEPER = ("tests/engines/test_keeper.py", "-k")
_ONCE = ("tests/data/test_once.py", "-k")
_PORTABLE = ("tests/engines/test_portability.py", "-k")
_MACHINES = ("tests/engines/test_machines.py", "-k")

SPEED: tuple[Plant, ...] = (
    Plant(
        "speed: a phase counts what passes in the phases within it",
        "learner_jax/engines/device_trace.py",
        "alone[open_[-1]] -= min(end, spans[open_[-1]][1]) - begin",
        "alone[open_[-1]] -= 0 * (min(end, spans[open_[-1]][1]) - begin)",
        (*_PROFILER, "add_up or counted_twice"),
    ),
    Plant(
        "speed: the checkpoint of a round is in no phase",
        "learner_jax/engines/keeper.py",
        '        with spans.span("checkpoint"):\n            items = {',
        '        with spans.span("round", round_number):\n            items = {',
        (*_PROFILER, "comes_late and checkpoint"),
    ),
    Plant(
        "speed: who listens to the journal hears it as telling",
        "learner_jax/engines/simulator.py",
        'with spans.span("journal"):',
        'with spans.span("tell"):',
        (*_PROFILER, "comes_late and journal"),
    ),
    Plant(
        "speed: steps and the watch have one name on the device",
        "learner_jax/engines/rounds.py",
        'with scope("evaluate"):',
        'with scope("step"):',
        (*_PROFILER, "a_step_that_takes_long"),
    ),
    Plant(
        "speed: operations without a name are of no scope",
        "learner_jax/engines/device_trace.py",
        "            at = caller.get(place[at])",
        "            at = None",
        (*_PROFILER, "name_have_that_of_their_loop"),
    ),
    Plant(
        "speed: a step lasts to the next step's begin, whatever lies between",
        "learner_jax/engines/device_trace.py",
        "if since is not None and (op.name == marker or not learns):",
        "if since is not None and op.name == marker:",
        (*_PROFILER, "ends_with_its_sites_loop"),
    ),
    Plant(
        "speed: why a round was compiled again is not said",
        "learner_jax/engines/profiler.py",
        "        if known and signature not in known:",
        "        if known and signature == known:",
        (*_PROFILER, "compiled_again"),
    ),
    Plant(
        "speed: the first to answer is the one that was waited for",
        "learner_jax/engines/profile_account.py",
        "sum(_waited(row) >= max(map(_waited, by_round[",
        "sum(_waited(row) <= min(map(_waited, by_round[",
        (*_PROFILER, "waited_for"),
    ),
    Plant(
        "speed: any difference of two profiles is a change",
        "learner_jax/reports/profile.py",
        "    apart = min(now) > max(before) or max(now) < min(before)",
        "    apart = True",
        (*_PROFILER, "side_by_side"),
    ),
    Plant(
        "speed: a stopped run leaves no profile",
        "learner_jax/engines/profiler.py",
        '            self.over()\n            if self._state == "traced" and',
        '            if self._state == "traced" and',
        (*_PROFILER, "stopped"),
    ),
    Plant(
        "speed: half of a round counts as one",
        "learner_jax/engines/profiler.py",
        "            if not failed:  # half of a round is none\n",
        "            if number:\n",
        (*_PROFILER, "stopped"),
    ),
    Plant(
        "speed: rounds of references count for the study's last",
        "learner_jax/engines/profiler.py",
        "        return bool(self._open[threading.get_ident()])\n\n    def over",
        "        return True\n\n    def over",
        (*_PROFILER, "references_have_no_part"),
    ),
    Plant(
        "speed: the trace goes on when the study's rounds are over",
        "learner_jax/engines/simulator.py",
        "    spans.over()\n",
        "",
        (*_PROFILER, "trace_ends_with"),
    ),
    Plant(
        "speed: the trace goes on where this process had no part in the last round",
        "learner_jax/engines/profiler.py",
        "            if self._current > self.rounds[-1]:",
        "            if self._current > 10**9:",
        (*_PROFILER, "trace_ends_with"),
    ),
    Plant(
        "speed: who was lost was not waited for",
        "learner_jax/engines/profiler.py",
        'self._lost[event.round] = list(event.data.get("lost", ()))',
        "self._lost[event.round] = []",
        (*_PROFILER, "never_came"),
    ),
    Plant(
        "speed: any profile is that of this run",
        "learner_jax/cli/doors.py",
        'if found is None or not set(found["rounds"]) <= set(asked):',
        "if found is None or not asked:",
        (*_PROFILER, "profile_of_before"),
    ),
    Plant(
        "speed: a trace that cannot be written ends the run",
        "learner_jax/engines/profiler.py",
        "        except Exception as error:\n            self.problem",
        "        except ZeroDivisionError as error:\n            self.problem",
        (*_PROFILER, "goes_wrong"),
    ),
    Plant(
        "speed: steps of lanes are looked for once a site",
        "learner_jax/engines/profiler.py",
        'int(self._amounts[number]["turns"])',
        'int(self._amounts[number]["steps"])',
        (*_PROFILER, "lanes_have"),
    ),
    Plant(
        "speed: the slowest plan is taken",
        "learner_jax/engines/choose.py",
        "best = min(took, key=lambda plan: took[plan])",
        "best = max(took, key=lambda plan: took[plan])",
        (*_CHOOSE, "quickest_is_taken"),
    ),
    Plant(
        "speed: what is hardly quicker is taken",
        "learner_jax/engines/choose.py",
        "    if took[best] > CLEARLY * took[plans[0]]:",
        "    if took[best] > took[plans[0]]:",
        (*_CHOOSE, "little_quicker"),
    ),
    Plant(
        "speed: a run goes on by the plan that is quickest now",
        "learner_jax/engines/choose.py",
        "        return make(kept or plans[0])",
        "        pass",
        (*_CHOOSE, "goes_on_by"),
    ),
    Plant(
        "speed: what is found is not kept for the next run",
        "learner_jax/engines/choose.py",
        '                    write_json(cache / "plans" / f"{key}.json", plan._asdict())',
        "                    pass",
        (*_CHOOSE, "next_run_knows"),
    ),
    Plant(
        "speed: a trial of plans leaves the sites with its states",
        "learner_jax/engines/choose.py",
        "        mine = program.place(states if program.plan.streams == 1 else jax.tree.map(jnp.copy, states))",
        "        mine = states",
        (*_CHOOSE, "quickest_is_taken"),
    ),
    Plant(
        "speed: a plan that was made ahead counts for any round",
        "learner_jax/engines/program.py",
        "if ahead is None or ahead.number != number or not",
        "if ahead is None or not",
        (*_PROGRAM, "made_ahead"),
    ),
    Plant(
        "speed: a plan that was made ahead counts for any sites",
        "learner_jax/engines/program.py",
        " or not np.array_equal(ahead.cohort, cohort):",
        ":",
        (*_PROGRAM, "made_ahead"),
    ),
    Plant(
        "speed: a generator goes on where the site before stopped",
        "learner_jax/data/plans.py",
        "        self._bits.state = self._fresh\n",
        '        self._bits.state = {**self._bits.state, "state": self._fresh["state"]}\n',
        (*_PLANS, "set_anew"),
    ),
    Plant(
        "speed: all passes of a round are shuffled alike",
        "learner_jax/data/plans.py",
        "        self._counter[2], self._counter[3] = round_number, pass_number\n",
        "        self._counter[2], self._counter[3] = round_number, 1\n",
        (*_PLANS, "set_anew"),
    ),
    Plant(
        "speed: a second epoch takes the order of the first",
        "learner_jax/engines/world.py",
        "                for start in range(at * size, (at + many) * size, each * size) if each else ():\n"
        "                    flat[start : start + len(rows)] = draw.permutation(rows)\n",
        "                order = draw.permutation(rows)\n"
        "                for start in range(at * size, (at + many) * size, each * size) if each else ():\n"
        "                    flat[start : start + len(rows)] = order\n",
        (*_PLANS, "each_sites_plan"),
    ),
    Plant(
        "speed: the shortest site is dealt first",
        "learner_jax/engines/world.py",
        'longest = np.argsort(-steps, kind="stable")',
        'longest = np.argsort(steps, kind="stable")',
        (*_PLANS, "grahams"),
    ),
    Plant(
        "speed: the benchmark's Adam corrects no bias",
        "benchmarks/loops.py",
        "lr * (m / c1) / (jnp.sqrt(v / c2) + eps)",
        "lr * m / (jnp.sqrt(v) + eps)",
        (*_ARMS, "another_work or optax_adam"),
    ),
    Plant(
        "speed: the last part of a batch alone is learned from",
        "learner_jax/engines/compute.py",
        "return total + one(weights, rows, mask, number), None",
        "return one(weights, rows, mask, number), None",
        (*_COMPUTE, "learn_the_same"),
    ),
    Plant(
        "speed: parts of a batch keep what their backward passes need all at once",
        "learner_jax/engines/compute.py",
        "        @jax.checkpoint\n        def one(",
        "        def one(",
        (*_COMPUTE, "less_memory"),
    ),
    Plant(
        "speed: bfloat16 is of the inputs alone",
        "learner_jax/engines/compute.py",
        "model.apply(_to(jnp.bfloat16, params), stats, x, key, train)",
        "model.apply(params, stats, x, key, train)",
        (*_COMPUTE, "products"),
    ),
    Plant(
        "speed: rematerialisation is asked for and not done",
        "learner_jax/engines/compute.py",
        "return jax.checkpoint(apply, static_argnums=(4,)) if compute.remat else apply",
        "return apply",
        (*_COMPUTE, "again"),
    ),
    Plant(
        "speed: batch statistics of parts are taken for those of the batch",
        "learner_jax/engines/compute.py",
        'if jax.tree.leaves(weights["stats"]):',
        "if False:",
        (*_COMPUTE, "refused_in_parts"),
    ),
    Plant(
        "speed: how a step computes is no part of what a study means",
        "learner_jax/specs/study.py",
        "    if study.compute == Compute():\n",
        "    if study.compute:\n",
        (*_COMPUTE, "study_of_before"),
    ),
    Plant(
        "speed: a step is saved without the best model that it names",
        "learner_jax/engines/keeper.py",
        'first = None if held is None else functools.partial(self._save_best, meta["best_round"], held)',
        "first = None",
        (*_KEEPER, "names_it"),
    ),
    Plant(
        "speed: the best model before the newest is let go too early",
        "learner_jax/engines/keeper.py",
        "self._held = {newest: self._held[newest]} if self._held else {}",
        "self._held = {}",
        (*_KEEPER, "stopped_after_its_look"),
    ),
    Plant(
        "speed: each better round waits for the disk",
        "learner_jax/engines/keeper.py",
        "if self._checkpoint.keep_best <= 1 and schema_bytes(trees.schema(server)) <= _SMALL:",
        "if False:",
        (*_KEEPER, "no_other_is"),
    ),
    Plant(
        "speed: a large best model stays in memory",
        "learner_jax/engines/keeper.py",
        "schema_bytes(trees.schema(server)) <= _SMALL:",
        "schema_bytes(trees.schema(server)) >= _SMALL:",
        (*_KEEPER, "let_go"),
    ),
    Plant(
        "speed: a table is read three times",
        "learner_jax/data/sites.py",
        "<= _KEPT_ROWS):",
        "<= -1):",
        (*_ONCE, "reads_its_columns_once"),
    ),
    Plant(
        "speed: what was read of a table is remembered for good",
        "learner_jax/data/once.py",
        "        _KEPT.reset(token)",
        "        pass",
        (*_ONCE, "let_go"),
    ),
    Plant(
        "speed: tables are told apart by nothing",
        "learner_jax/data/once.py",
        "key = function, id(first), rest",
        "key = function, rest",
        (*_ONCE, "let_go"),
    ),
    Plant(
        "speed: a round calls back into Python",
        "learner_jax/engines/rounds.py",
        "        return jax.lax.bitcast_convert_type(same, leaf.dtype)",
        "        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), leaf)",
        (*_PORTABLE, "every_method and fedavg"),
    ),
    Plant(
        "speed: prediction takes an operation that a TPU has not",
        "learner_jax/engines/judge.py",
        'rows: model.apply(weights["params"], weights["stats"], rows, None, False)[0])',
        'rows: (model.apply(weights["params"], weights["stats"], rows, None, False)[0],\n'
        "                                          jnp.linalg.eig(jnp.eye(2))[0]))",
        (*_PORTABLE, "prediction and logistic"),
    ),
    Plant(
        "speed: each of two processes takes the other's sites for its own",
        "learner_jax/engines/machines.py",
        "lambda index: whole[index])",
        "lambda index: whole[::-1][index])",
        (*_MACHINES, "two_processes"),
    ),
    Plant(
        "speed: a process that joins takes any place",
        "learner_jax/engines/machines.py",
        "if found is None or not int(found[3]) < int(found[2]):",
        "if found is None:",
        (*_MACHINES, "one_line"),
    ),
)
