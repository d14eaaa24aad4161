"""The lines that benchmarks leave, one JSON object each, as tables in Markdown: the newest of each piece of work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from learner_jax.errors import DataError

BEGIN, END = "<!-- begin: learner bench table -->", "<!-- end: learner bench table -->"
"""Between them a page's tables are written anew."""

Line = Mapping[str, Any]


def read(folder: Path) -> list[dict[str, Any]]:
    """Every line of a folder's .jsonl files, in the order of their files' names.

    Raises:
      DataError: there is no such file, or a line is no JSON object.
    """
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DataError(f"expected results of benchmarks (.jsonl) in {folder}, got none")
    found = []
    for path in files:
        for number, text in enumerate(path.read_text().splitlines(), 1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if not isinstance(line, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object, got something else")
            found.append(line)
    return found


def tables(lines: Sequence[Line]) -> str:
    """The tables of what is known, in Markdown."""
    parts = [
        _simulator(_newest(lines, "simulator", "name")),
        _devices(_newest(lines, "devices", "name")),
        _peers(_newest(lines, "simulator_peers", "name")),
        _first(_newest(lines, "first_result")),
        _checkpoints(_newest(lines, "checkpoints")),
        _aggregation(_newest(lines, "aggregation", "parameters")),
        _fused(_newest(lines, "fused")),
        _streaming(_newest(lines, "streaming", "name")),
        _device(_newest(lines, "device_check")),
    ]
    return "\n\n".join(part for part in parts if part)


def put(page: str, inside: str) -> str:
    """The page with its tables between the two marks made anew.

    Raises:
      DataError: the page has not both marks, once each.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise DataError(f"expected the marks '{BEGIN}' and '{END}' once each in the page, got others")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{inside}\n\n{END}{rest.partition(END)[2]}"


def _newest(lines: Iterable[Line], benchmark: str, *keys: str) -> list[Line]:
    """The last line of each of what the keys tell apart; lines of before they did so are left out."""
    found: dict[tuple[Any, ...], Line] = {}
    for line in lines:
        known = all(line.get(key) is not None for key in keys)
        if line.get("benchmark") == benchmark and known and not line.get("quick"):
            found[tuple(line[key] for key in keys)] = line
    return [found[key] for key in sorted(found, key=str)]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _on(line: Line) -> str:
    machine, versions = line["machine"], line["versions"]
    own = versions.get("ours", versions)
    return f"{machine['cpu'].partition(' (')[0]}, {machine['cores']} cores, JAX {own['jax']}, n = {line['n']}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f}" if seconds < 1 else f"{1e3 * seconds:,.0f}"


def _spread(ratio: Mapping[str, float]) -> str:
    return f"{ratio['paired']:.2f} ({ratio['q1']:.2f} to {ratio['q3']:.2f})"


def _simulator(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        over, best = line["ratio_to_best_loop"], line["best_loop"]["wall"]
        if "ratio_to_floor" in line:  # of a method with a state: read and written once, beside that loop
            over, best = {arm: {"wall": ratio} for arm, ratio in line["ratio_to_floor"].items()}, best
        rows.append([
            line["name"], f"{_ms(line['arms'][best]['wall_s']['median'])} ({best})",
            *(_spread(over[arm]["wall"]) if arm in over else "" for arm in ("sequential", "streams_2", "lanes_4")),
            _on(line),
        ])  # fmt: skip
    head = ("work", "best plain loop, ms", "one core", "two cores", "four lanes, one core", "on")
    return _table("A simulated round over the best plain loop with one thread, wall time by repeat", head, rows)


def _devices(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for arm, told in line["round_s"].items():
            over = line["over_one"].get(arm)
            off = f"{line['apart_in_float64'][arm]:.1e}" if over else ""
            beside = _spread(over["wall"]) if over else ""
            rows.append([line["name"], f"`{arm}`", _ms(told["median"]), beside, off, _on(line)])
    head = ("work", "processes and devices", "a round, ms", "over one device, by repeat", "apart in float64", "on")
    return _table("A second device, a second process", head, rows)


def _peers(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for arm, told in line["arms"].items():
            ratio = line["ratio_to_ours"].get(arm)
            seconds = _ms(told["wall_s"]["median"])
            over = f"{_spread(ratio['wall'])} of `{ratio['over']}`" if ratio else "ours"
            rows.append([line["name"], f"`{arm}`", str(told["cores"]), seconds, over])
        rows += [[line["name"], f"`{arm}`", "", "not run", why] for arm, why in line["not_run"].items()]
    head = ("work", "arm", "cores", "a round, ms", "over ours, by repeat")
    return _table("Other frameworks, the same batches", head, rows)


def _first(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for study, kinds in line["until"].items():
            for kind, told in kinds.items():
                seconds = (f"{told[name]['median']:.1f}" for name in ("begins_s", "statistics_s", "round_1_s"))
                rows.append([f"`simulate --config={study}`, {kind}", *seconds, _on(line)])
        rows += [[f"`{name}`", "", "", f"{told['median']:.2f}", _on(line)] for name, told in line["short_s"].items()]
    head = ("command", "begins, s", "statistics agreed, s", "round 1 is over, s", "on")
    return _table("From a command to its first result", head, rows)


def _checkpoints(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for arm, told in line["round_s"].items():
            over = line["over_nothing"].get(arm)
            rows.append([arm, _ms(told["median"]), _spread(over["wall"]) if over else "", _on(line)])
    head = ("kept", "a round, ms", "over nothing kept, by repeat", "on")
    return _table("What keeping a run costs", head, rows)


def _aggregation(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for place, counts in line["found"].items():
            for count, told in counts.items():
                rates = (f"{told['gb_per_s'][arm]['median']:.2f}" for arm in ("reducer", "numpy", "jnp"))
                rows.append([f"{line['parameters'] / 1e6:g} M", count, place, *rates, _on(line)])
    head = ("parameters", "updates", "", "ours, GB/s", "NumPy", "jnp", "on")
    return _table("Adding updates up", head, rows)


def _fused(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for arm, told in line["round_s"].items():
            over, (kept, _, many) = line["over_one_by_one"].get(arm), arm.partition("_")
            rows.append([many, kept, f"{1e3 * told['median']:.2f}", _spread(over["wall"]) if over else "", _on(line)])
    head = ("rounds in a call", "folder", "a round, ms", "over one by one, by repeat", "on")
    return _table("What a round of a tiny model has of its own", head, rows)


def _streaming(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for arm, told in line["round_s"].items():
            over = line["over_resident"].get(arm)
            peak = line["peak_above_start"][arm] / line["sizes"]["bytes"]
            beside = _spread(over["wall"]) if over else ""
            rows.append([line["name"], f"`{arm}`", _ms(told["median"]), beside, f"{peak:.2f}", _on(line)])
    head = (
        "work",
        "rows, devices",
        "a round, ms",
        "over rows on the device, by repeat",
        "peak memory, of the rows",
        "on",
    )
    return _table("Rows of four times the memory that they may take", head, rows)


def _device(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        for name, told in line["works"].items() if line["device"]["platform"] != "cpu" else ():
            plan = told["quickest_plan"]
            rows.append([
                line["device"]["kind"], name, plan, _ms(told["wall_s"][plan]["median"]),
                _spread(told["ratio_to_best_loop"][plan]), f"{100 * told['mfu']:.2g} %", f"{told['gb_per_s']:.3g}",
            ])  # fmt: skip
    head = ("device", "work", "quickest plan", "a round, ms", "over the best loop", "of the matmul peak", "GB/s")
    return _table("`make device-check`", head, rows)
