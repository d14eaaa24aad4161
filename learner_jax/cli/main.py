"""`learner COMMAND`: finds the command, runs it, and turns what goes wrong into one line and an exit code.

Exit codes: 0 done; 1 a study, a table or a disk said no; 2 the command line or the config is wrong; 130 stopped by
Ctrl-C, 143 by SIGTERM. Help, `--version` and refusals import neither jax nor anything else that is heavy.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from learner_jax import failpoints
from learner_jax.cli import backup, doors, environment, help, predict, recalibrate
from learner_jax.cli.flags import Parsed, parse
from learner_jax.cli.sentences import size, wrapped
from learner_jax.cli.stopping import Stopped, stoppable
from learner_jax.errors import ConfigError, CryptoError, DataError, LearnerError
from learner_jax.events import Event, Observer, silent
from learner_jax.spans import rounds_of
from learner_jax.specs import Study, manifest_digest, near

if TYPE_CHECKING:
    from learner_jax.cli.progress import Stream


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
      argv: without the program's name; None for the process's own.

    Returns:
      The exit code.
    """
    try:
        code = _main(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `learner data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "--helpfull", "--helpshort", "help"):
        topic = arguments[1] if len(arguments) > 1 and arguments[1] in help.COMMANDS else None
        print(help.command(topic) if topic else help.overview())
        return 0
    if arguments[0] in ("--version", "version"):
        print("\n".join(f"{name} {number}" for name, number in doors.versions().items()))
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in help.COMMANDS:
        kind = "flag here" if name.startswith("-") else "command"
        guess = near(name, help.COMMANDS) or f" (there are {', '.join(help.COMMANDS)})"
        return _refuse("learner", f"no {kind} {name!r}{guess}", 2)
    until = rest.index("--") if "--" in rest else len(rest)
    if {"-h", "--help", "--helpfull", "--helpshort"} & set(rest[:until]):
        print(help.command(name))
        return 0
    return _guarded(name, rest)


def _guarded(name: str, rest: Sequence[str]) -> int:
    """Runs a command; what we raise on purpose becomes a line, a bug of ours keeps its traceback."""
    machine = "--json" in rest
    try:
        with stoppable():
            failpoints.arm(os.environ.get(failpoints.VARIABLE))
            parsed = parse(rest, help.COMMANDS[name].flags, help.COMMANDS[name].config)
            return _COMMANDS[name](parsed)
    except LearnerError as error:
        if machine:
            print(json.dumps({"command": name, "error": str(error)}))
        return _refuse(f"learner {name}", str(error), 2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt as stop:
        print("stopped", file=sys.stderr)
        return 143 if isinstance(stop, Stopped) else 130
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(f"learner {name}", f"{error.filename}: {error.strerror}", 1)


def _refuse(who: str, words: str, code: int) -> int:
    print(f"{who}: {' '.join(words.split())}", file=sys.stderr)
    return code


# ---- commands that run a study ---------------------------------------------------------------------------------------


def _simulate(parsed: Parsed) -> int:
    study = _study(parsed)
    folder = _workdir(parsed, study, "")
    resume = parsed.values["resume"]
    profile, processes = _profile(parsed), parsed.values["processes"]
    if processes is not None and not doors.joined(processes):  # the first tells of it, and keeps the folder
        doors.simulate(study, folder, silent, resume, None)
        return 0
    return _run(parsed, study, folder, lambda tell: doors.simulate(study, folder, tell, resume, profile))


def _local(parsed: Parsed) -> int:
    sites = parsed.values["sites"]
    if sites is not None and sites < 1:
        raise ConfigError(f"--sites: expected at least 1, got {sites}")
    study = _study(parsed, one_site=True)
    folder = _workdir(parsed, study, "-local" if sites is None else f"-local-{sites}")
    resume, profile = parsed.values["resume"], _profile(parsed)
    return _run(parsed, study, folder, lambda tell: doors.local(study, folder, tell, resume, sites, profile))


def _coordinator(parsed: Parsed) -> int:
    study = _study(parsed, one_site=True)
    folder = _workdir(parsed, study, "-coordinator")
    host = parsed.values["host"] or study.federation.host
    port = study.federation.port if parsed.values["port"] is None else parsed.values["port"]
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port: expected 0 to 65535, got {port}")
    sites = _names(parsed.values["sites"], study)
    broker = _broker_code(parsed.values["broker_file"], folder)
    resume, address, profile = parsed.values["resume"], parsed.values["address"], _profile(parsed)
    return _run(
        parsed,
        study,
        folder,
        lambda tell: doors.coordinator(study, folder, tell, resume, sites, host, port, address, broker, profile),
    )


def _broker(parsed: Parsed) -> int:
    values = parsed.values
    if not 0 <= values["port"] <= 65535:
        raise ConfigError(f"--port: expected 0 to 65535, got {values['port']}")
    names = [name.strip() for name in (values["coordinators"] or "").split(",") if name.strip()]

    def say(text: str) -> None:
        print(f"broker: {text}", flush=True)

    def opened(address: str, files: Mapping[str, Path]) -> None:
        say(f"listening at {address}")
        for name, path in files.items():
            say(f"join code of {name}, works once: {path}")

    def tell(event: Event) -> None:
        with contextlib.suppress(OSError):  # the disk of its log is full
            say(str(event.data.get("text", "")))

    try:
        doors.broker(names, Path(values["workdir"]), tell, values["host"], values["port"], values["address"], opened)
    except KeyboardInterrupt as stop:
        say("stopped; the same command goes on")
        return 143 if isinstance(stop, Stopped) else 130
    return 0


def _broker_code(file: str | None, folder: Path) -> str | None:
    """A broker's join code; "" once this folder has joined it, None without a broker."""
    if doors.has_joined(folder / "broker"):
        return ""
    return None if file is None else _join_code(file, "--broker_file")


def _rotate(parsed: Parsed) -> int:
    from learner_jax.cli.proxy import proxy_of

    site = doors.rotate(Path(parsed.values["workdir"]), proxy_of(parsed.values))
    print(f"{site} has new keys, and the old ones are nobody's. Start its worker again.")
    return 0


def _revoke(parsed: Parsed) -> int:
    if len(parsed.words) != 1 or not parsed.values["workdir"]:
        raise ConfigError("expected one site and its coordinator's folder: learner revoke SITE --workdir=RUN")
    site, folder = parsed.words[0], Path(parsed.values["workdir"])
    if doors.revoke(folder, site, parsed.values["reason"] or ""):
        print(f"{site} is off the roster, and its line is closed. What it has added to the model so far stays in it.")
    else:
        print(f"No coordinator runs in {folder}: {site} will be off the roster before the next one lets anybody in.")
    return 0


def _invite(parsed: Parsed) -> int:
    if len(parsed.words) != 1 or not parsed.values["workdir"]:
        raise ConfigError("expected one site and its coordinator's folder: learner invite SITE --workdir=RUN")
    site, folder = parsed.words[0], Path(parsed.values["workdir"])
    code = doors.invite(folder, site)
    if code is None:
        print(f"Nothing runs in {folder}: what is started there next makes a join code for {site}.")
    else:
        print(f"Join code of {site}, works once: {code}")
        print("A site takes part from the round on that follows its joining. Send the code as you would a password.")
    return 0


def _names(given: str | None, study: Study) -> tuple[str, ...]:
    """Who takes part: names, or a number of sites called site-1, site-2, ...; else those of the config."""
    if given is None:
        if not study.data.sites:
            raise ConfigError("--sites is missing: expected the sites' names (--sites=north,south), or how many")
        return study.data.sites
    if given.isdigit():
        return tuple(f"site-{number}" for number in range(1, int(given) + 1))
    return tuple(name.strip() for name in given.split(",") if name.strip())


def _join(parsed: Parsed) -> int:
    from learner_jax.cli.proxy import proxy_of

    _no_code_in_argv(parsed)
    if not parsed.values["data"]:
        raise ConfigError("--data is missing: expected this site's table (CSV or Parquet)")
    data = Path(parsed.values["data"])
    if not data.exists():
        raise ConfigError(f"--data: no file {str(data)!r}")
    folder, site = Path(parsed.values["workdir"]), parsed.values["site"]
    # once it has joined, a code is of no use, and its file may be gone: the same command goes on
    code = None if doors.has_joined(folder) else _join_code(parsed.values["join_file"])
    proxy, profile = proxy_of(parsed.values), _profile(parsed)
    if parsed.values["with_parent"]:
        _leave_with_parent()
    environment.apply(environment.for_one_site())
    return _run(
        parsed,
        None,
        folder,
        lambda tell: doors.join(code, data, folder, site, proxy, tell, parsed.values["release_histograms"], profile),
    )


def _doctor(parsed: Parsed) -> int:
    from learner_jax.cli import doctor

    _no_code_in_argv(parsed)
    study = _study(parsed, one_site=True) if parsed.config or parsed.overrides else None
    file = parsed.values["join_file"]
    return doctor.run(parsed.values, study, _join_code(file) if file else None)


def _profile(parsed: Parsed) -> str | None:
    """The rounds to profile, looked at before anything is started."""
    text = parsed.values["profile"]
    if text is not None:
        rounds_of(text)
    return text


def _no_code_in_argv(parsed: Parsed) -> None:
    if parsed.words:
        raise ConfigError(
            "a join code never stands on the command line, where others on this machine can read it: "
            "give --join_file=PATH, or, to join, nothing and it is asked for"
        )


def _leave_with_parent() -> None:
    """Ends this process when its standard input ends: with whoever started it, however that went."""
    import threading

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _join_code(file: str | None, flag: str = "--join_file") -> str:
    if file:
        path = Path(file)
        if not path.is_file():
            raise ConfigError(f"{flag}: no file {file!r}")
        code = path.read_text(encoding="utf-8", errors="replace").strip()
    elif sys.stdin.isatty():
        code = getpass.getpass("Join code (not shown): ").strip()
    else:
        code = sys.stdin.readline().strip()
    if not code:
        raise CryptoError(f"expected a join code, got nothing from {file or 'the prompt'}")
    return code


def _study(parsed: Parsed, one_site: bool = False) -> Study:
    """The checked study; what jax reads at its start is set on the way."""
    from learner_jax.cli import config

    if parsed.words:
        guess = f" (did you mean --config={parsed.words[0]}?)" if parsed.config is None else ""
        raise ConfigError(f"expected flags only, got {parsed.words[0]!r}{guess}")

    def before_jax(study: Study) -> None:
        environment.apply(environment.variables(study, environment.cores(), one_site))

    return config.load(parsed.config, parsed.overrides, before_jax)


def _workdir(parsed: Parsed, study: Study, ending: str) -> Path:
    """The run's folder: as given, or one that the same command finds again and another study does not."""
    name = f"{study.name}-{study.algorithm.name}-{manifest_digest(study)[:8]}{ending}"
    return Path(parsed.values["workdir"] or Path("runs") / name.replace(" ", "_"))


def _run(parsed: Parsed, study: Study | None, workdir: Path, engine: Callable[[Observer], None]) -> int:
    """Runs an engine under the listeners, then shows what it found."""
    from learner_jax.cli import progress

    values = parsed.values
    people = sys.stderr if values["json"] else sys.stdout
    stopped: KeyboardInterrupt | None = None
    with progress.listening(study, workdir, people, values.get("tensorboard", False)) as (tell, tally):
        try:
            engine(tell)
        except KeyboardInterrupt as stop:
            stopped = stop
    if stopped is not None:
        where = f" after round {tally.round}" if tally.round else " before this start did a round" if study else ""
        print(f"stopped{where}; the same command goes on", file=people)
    elif study is not None:
        _show(tally.result or doors.result_of(workdir), workdir, people, values["report"])
    if values["profile"] is not None:
        told = doors.profile_table(workdir, values["profile"])
        nothing = "No profile: none of these rounds was run."
        print(f"\n{told}\n\nThe trace: {workdir / 'profile'}" if told else f"\n{nothing}", file=people)
    if values["json"]:
        print(progress.as_json(progress.summary(study, tally) | ({"stopped": True} if stopped else {})), flush=True)
    return 0 if stopped is None else 143 if isinstance(stopped, Stopped) else 130


def _show(result: doors.Result, workdir: Path, people: Stream, report: bool) -> None:
    text = doors.table(result)
    print(wrapped(text, shutil.get_terminal_size().columns) if people.isatty() else text, file=people)
    if report:
        doors.page(result, workdir / "report.html")
        print(f"\nThe report: {workdir / 'report.html'}", file=people)


# ---- commands that look at something ---------------------------------------------------------------------------------


def _report(parsed: Parsed) -> int:
    words = parsed.words or ((parsed.values["workdir"],) if parsed.values["workdir"] else ())
    if len(words) != 1:
        raise ConfigError(f"expected one run's folder, got {len(words)}: learner report RUN")
    folder = Path(words[0])
    if folder.name.endswith(doors.COHORT):
        out = Path(parsed.values["out"] or folder.with_suffix(".html"))
        text = doors.cohort_page(folder, out)
        told = json.dumps({"cohort": str(folder), "report": str(out)})
        print(told if parsed.values["json"] else f"{text}\n\nThe report: {out}")
        return 0
    result = doors.result_of(folder)
    out = Path(parsed.values["out"] or folder / "report.html")
    doors.page(result, out)
    if parsed.values["json"]:
        print(json.dumps({"run": str(folder), "report": str(out), "rounds": result.get("rounds")}))
    else:
        print(f"{doors.table(result)}\n\nThe report: {out}")
    return 0


def _forecast(parsed: Parsed) -> int:
    from learner_jax.cli import forecast

    study = _study(parsed, one_site=True)
    sites = None if parsed.values["sites"] is None else _names(parsed.values["sites"], study)
    return forecast.show(study, sites, parsed.values["line_mbit"], parsed.values["json"])


def _compare(parsed: Parsed) -> int:
    if len(parsed.words) < 2:
        raise ConfigError(f"expected the folders of two runs or more, got {len(parsed.words)}: learner compare RUN RUN")
    results = [doors.result_of(Path(word)) for word in parsed.words]
    out = parsed.values["out"]
    if out:
        doors.compare_page(results, parsed.words, Path(out))
    if parsed.values["json"]:
        print(json.dumps([dict(result, run=word) for word, result in zip(parsed.words, results, strict=True)]))
    else:
        profiles = doors.profiles_compared([Path(word) for word in parsed.words])
        print("\n\n".join(filter(None, [doors.compare(results), profiles, f"The page: {out}" if out else ""])))
    return 0


def _bench(parsed: Parsed) -> int:
    if parsed.words != ("table",):
        raise ConfigError(f"expected table, got {' '.join(parsed.words) or 'nothing'}: learner bench table")
    out = parsed.values["out"]
    print(doors.bench_tables(Path(parsed.values["results"]), None if out is None else Path(out)))
    return 0


def _data(parsed: Parsed) -> int:
    actions = {"list": _data_list, "fetch": _data_fetch, "check": _data_check, "cohort": _data_cohort}
    word = parsed.words[0] if parsed.words else ""
    if word not in actions:
        raise ConfigError(
            f"expected list, fetch NAME, check or cohort PATH, got {word or 'nothing'}{near(word, actions)}"
        )
    return actions[word](parsed._replace(words=parsed.words[1:]))


def _data_list(parsed: Parsed) -> int:
    sets = doors.data_sets()
    if parsed.values["json"]:
        print(json.dumps([dict(one) for one in sets]))
        return 0
    for one in sets:
        print(f"{one['name']:<16} {one['title']}\n{'':<16} {one['licence']}; cite: {one['citation']}")
    return 0


def _data_fetch(parsed: Parsed) -> int:
    if len(parsed.words) != 1:
        raise ConfigError("expected one name: learner data fetch NAME (learner data list shows them)")
    into = Path(parsed.values["into"]) if parsed.values["into"] else None
    got = doors.fetch(parsed.words[0], into, _bar(sys.stderr))
    if parsed.values["json"]:
        told = {"name": parsed.words[0], "path": str(got.path), "sha256": got.sha256, "downloaded": got.downloaded}
        print(json.dumps({**told, "pinned": got.pinned}))
    else:
        print(f"{got.notice}\n{got.path}" + ("" if got.downloaded else " (was there already)"))
    return 0


def _data_check(parsed: Parsed) -> int:
    given = [*parsed.words, *([parsed.values["data"]] if parsed.values["data"] else [])]
    if len(given) != 1:
        raise ConfigError(f"expected one table, got {len(given)}: learner data check --config=STUDY --data=FILE")
    study = _study(parsed._replace(words=()), one_site=True)
    if parsed.values["json"]:
        try:
            remarks, problem = list(doors.check_table(study, Path(given[0]))), None
        except DataError as error:
            remarks, problem = [], str(error)
        print(json.dumps({"table": given[0], "study": study.name, "problem": problem, "remarks": remarks}))
        return 0 if problem is None else 1
    remarks = doors.check_table(study, Path(given[0]))
    print("\n".join([*remarks, f"{given[0]} fits what the study {study.name} asks for. Nothing was sent."]))
    return 0


def _data_cohort(parsed: Parsed) -> int:
    if len(parsed.words) != 1:
        raise ConfigError(f"expected one file or folder of records, got {len(parsed.words)}: learner data cohort PATH")
    named, out, features = (parsed.values[name] for name in ("cohort", "out", "features"))
    if (out or features) and not named:
        raise ConfigError("expected --cohort=NAME with --out or --features: one cohort's rows")
    if parsed.values["events"] and not features:
        raise ConfigError("expected --features=FILE with --events: the history is a column of that file")
    source, door, schema = parsed.words[0], parsed.values["door"], parsed.values["schema"]
    told = doors.cohorts(
        source, named, door, schema, out and Path(out), features and Path(features), parsed.values["events"]
    )
    if parsed.values["json"]:
        print(json.dumps(told["json"]))
    else:
        print("\n\n".join(told["words"]))
    return 0


def _bar(stream: Stream) -> Callable[[int, int | None], None]:
    """A line of progress that rewrites itself on a terminal, and is silent elsewhere."""

    def tell(done: int, whole: int | None) -> None:
        if stream.isatty():
            end = "\n" if whole is not None and done >= whole else "\r"
            print(f"{size(done)} of {size(whole) if whole else 'unknown'}   ", end=end, file=stream, flush=True)

    return tell


_COMMANDS: dict[str, Callable[[Parsed], int]] = {
    "simulate": _simulate,
    "local": _local,
    "coordinator": _coordinator,
    "forecast": _forecast,
    "broker": _broker,
    "invite": _invite,
    "revoke": _revoke,
    "rotate": _rotate,
    "backup": backup.backup,
    "restore": backup.restore,
    "join": _join,
    "doctor": _doctor,
    "report": _report,
    "compare": _compare,
    "bench": _bench,
    "predict": predict.predict,
    "recalibrate": recalibrate.recalibrate,
    "data": _data,
}


if __name__ == "__main__":
    raise SystemExit(main())
