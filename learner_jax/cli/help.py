"""The commands: their flags, and the words of `--help`. Nothing heavy is imported, so that help comes at once."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import NamedTuple

from learner_jax.cli.flags import Flag
from learner_jax.specs import Checkpoint, Compute, Data, Engine, Federation, Release, Spec, Study, shipped


class Command(NamedTuple):
    """One `learner NAME`.

    Attributes:
      line: what it does, in one line.
      about: what it does, in a paragraph.
      examples: command lines.
      flags: its own, beside `--config`.
      config: whether it takes `--config` and `--config.a.b=value`.
      words: the arguments that are no flags, as shown: "RUN", "RUN RUN"; "" for none.
    """

    line: str
    about: str
    examples: tuple[str, ...]
    flags: tuple[Flag, ...]
    config: bool = False
    words: str = ""


_PROFILE = Flag("profile", str, "rounds to profile, such as 3:5: a trace and a table in the folder's profile/")
_RUN = (
    Flag("workdir", str, "folder of the run; the same command goes on there (default: a name of its own in runs/)"),
    Flag("resume", bool, "do not go on with a run: refuse a folder that holds one", True),
    Flag("report", bool, "write no report.html at the end", True),
    Flag("json", bool, "the last line of stdout is one JSON object; everything for people goes to stderr", False),
    Flag("tensorboard", bool, "also write for TensorBoard (pip install 'learner-jax[tensorboard]')", False),
    _PROFILE,
)
_PROXY = (
    Flag("proxy", str, "an HTTP proxy that is the only way out: http://HOST:PORT, https://USER@HOST:PORT"),
    Flag("proxy_password_file", str, "file that holds the proxy's password (default: it is asked for)"),
)
_OUT = Flag("out", str, "the HTML page to write")

COMMANDS = {
    "simulate": Command(
        "all sites in one process, a round as one compiled program",
        "Runs a study on this machine, all sites in one process, and ends with a table, three sentences and a report. "
        "Ctrl-C or a lost machine cost at most the round at hand: the same command goes on.",
        (
            "learner simulate --config=readmission",
            "learner simulate --config=my_study.py --config.rounds=100 --config.algorithm=scaffold "
            "--config.algorithm.local_lr=0.05 --workdir=runs/scaffold",
            "learner simulate --config=readmission --config.algorithm.local.learning_rate=1e-3 --config.cohort=0.5",
            "srun learner simulate --config=readmission --processes=auto --workdir=runs/cluster",
        ),
        (
            *_RUN,
            Flag(
                "processes",
                str,
                "share the rounds with other processes, on one machine or many, started by the same command: "
                "HOST:PORT,COUNT,INDEX (of the first, how many, which this is, from 0), or auto under Slurm or Open "
                "MPI. The first keeps the run's folder",
            ),
        ),
        config=True,
    ),
    "local": Command(
        "the same study as real processes on this machine: a coordinator and its sites",
        "Starts a coordinator and one worker for each site, with encrypted links between them, from the same config "
        "as `learner simulate`.",
        ("learner local --config=readmission", "learner local --config=readmission --sites=4 --workdir=runs/four"),
        (Flag("sites", int, "the first so many sites of the config (default: all)"), *_RUN),
        config=True,
    ),
    "compare": Command(
        "two runs side by side",
        "Sets the results of two or more runs side by side: metrics, seconds, bytes; with --out also as one HTML page. "
        "Runs with a profile (--profile=3:8) are held against the first by phase, in the terminal: what changed beyond "
        "noise.",
        ("learner compare runs/demo runs/scaffold", "learner compare runs/demo runs/scaffold --out=both.html"),
        (_OUT, Flag("json", bool, "one JSON object in place of the table", False)),
        words="RUN RUN...",
    ),
    "bench": Command(
        "what benchmarks found, as tables",
        "table: the newest line of each benchmark in a folder of results, as tables in Markdown. With --out they are "
        "put into that page, between its marks.",
        ("learner bench table", "learner bench table --out=docs/benchmarks.md"),
        (
            Flag("results", str, "the folder of .jsonl files", "benchmarks/results"),
            Flag("out", str, "the page whose tables are made anew (default: they are printed)"),
        ),
        words="table",
    ),
    "report": Command(
        "the table, the sentences and the page of a finished run",
        "Shows what a run found and writes it as one HTML page that needs nothing else. Of a cohort file (beside the "
        "table that `learner data cohort --features` wrote): how the table's rows were chosen, for the hospital.",
        (
            "learner report runs/demo",
            "learner report runs/demo --out=readmission.html",
            "learner report features/north.cohort.json",
        ),
        (Flag("workdir", str, "the run's folder, if not given as RUN"), _OUT, _RUN[3]),
        words="RUN | FILE",
    ),
    "predict": Command(
        "what a trained model says of patients: records, a table, or a form",
        "Says a chance for each row of a table, for stays in a hospital's records (MEDS, OMOP, FHIR or plain tables; "
        "one patient's FHIR bundle too), or for one patient by a form. Records go with a study whose columns are those "
        "of `learner data cohort --features`: each patient's last stay is predicted as of its discharge, or, where it "
        "has not ended, as if that were now. Who died in it is left out. For research, not for care.",
        (
            "learner predict runs/heart --records=patient.json --cohort=heart_failure_readmission",
            "learner predict runs/heart --records=/data/omop --every --out=chances.csv",
            "learner predict runs/heart --data=features.csv --out=chances.csv",
            "learner predict runs/heart --form",
            "learner predict runs/heart --value=age=71 --value=sodium_last=131",
        ),
        (
            Flag("records", str, "a folder, a file or a data base of health records"),
            Flag("data", str, "a table of the study's columns (CSV, Parquet, or a query in .sql)"),
            Flag("form", bool, "ask for one patient, column by column", False),
            Flag("value", list, "one patient's value; may be given again"),
            Flag("patient", str, "records: only this one, as the hospital calls the patient"),
            Flag("encounter", str, "records: only this stay, in place of each patient's last"),
            Flag("every", bool, "records: all stays of each patient", False),
            Flag(
                "at", str, "records: the moment that counts as now, such as 2026-03-01T12:00; what is later is not read"
            ),
            Flag("cohort", str, "records: a rule (shipped, or its file); stays that it would leave out are told"),
            Flag("door", str, "records: meds, omop, table or fhir (default: guessed by what is there)"),
            Flag("schema", str, "records: the schema of OMOP's tables in a data base"),
            Flag("out", str, "the CSV to write (default: it is printed)"),
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        words="RUN",
    ),
    "recalibrate": Command(
        "move a trained model's chances to what comes at one hospital",
        "A model from elsewhere may rank patients well and tell chances that are too high or too low here. This finds, "
        "by rows whose outcome is known, how log-odds are to be moved (and, from 100 rows with the outcome and 100 "
        "without, spread), and writes the model with that beside its weights. Nothing is trained, the ranking stays.",
        (
            "learner recalibrate runs/heart --data=features.csv",
            "learner recalibrate runs/heart --data=features.csv --out=runs/heart-here",
        ),
        (
            Flag("data", str, "a table of the study's columns with the outcome; of rows that it did not learn from"),
            Flag("out", str, "a new folder for the model (default: nothing is written)"),
        ),
        words="RUN",
    ),
    "coordinator": Command(
        "hold the model, let sites enrol, run the rounds",
        "Waits at one port for the study's sites, hands out join codes that work once, and runs the rounds. "
        "Sites dial in; nobody dials them.",
        (
            "learner coordinator --config=readmission --sites=north,south,west --host=0.0.0.0 "
            "--address=learner.example.org --port=7443 --workdir=runs/study",
            "learner coordinator --config=readmission --sites=4 --config.federation.quorum=0.8",
        ),
        (
            Flag("sites", str, "names of the sites that take part, by commas, or how many (default: the config's)"),
            Flag("host", str, "address to listen at (default: the config's federation.host)"),
            Flag("address", str, "what sites dial, NAME or NAME:PORT, if not the host; goes into join codes"),
            Flag("port", int, "port to listen at (default: the config's federation.port; 0 is any free one)"),
            Flag("broker_file", str, "file with a broker's join code: be reached through it, and listen nowhere"),
            *_RUN,
        ),
        config=True,
    ),
    "broker": Command(
        "one port for the sites of several coordinators",
        "Stands between coordinators and sites, where only one machine can be reached from outside. It authenticates "
        "and routes; what passes is signed and sealed between coordinator and site, so that it can neither read nor "
        "change it. Each coordinator gets a join code that works once (learner coordinator --broker_file=FILE).",
        ("learner broker --coordinators=heart,lung --host=0.0.0.0 --port=7000 --address=broker.example.org",),
        (
            Flag("coordinators", str, "names of the studies whose coordinators may join: heart,lung"),
            Flag("workdir", str, "folder of the broker's keys and join codes", "runs/broker"),
            Flag("host", str, "where to listen; 0.0.0.0 for every interface", "127.0.0.1"),
            Flag("port", int, "where to listen; 0 takes a free port", 7000),
            Flag("address", str, "what sites and coordinators dial, NAME or NAME:PORT, where it is not the host"),
        ),
    ),
    "backup": Command(
        "a coordinator's state as one file, while it runs",
        "Writes what a coordinator must not lose as one file: journal, updates, steps, keys, roster. The coordinator "
        "may run meanwhile. The file holds its secret keys, and only its owner may read it.",
        ("learner backup runs/study --out=study.tar",),
        (
            Flag("out", str, "the file to write; one that is there is replaced"),
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        words="RUN",
    ),
    "restore": Command(
        "a coordinator's state out of a backup, here or on another machine",
        "Makes a run's folder out of a backup; the command that ran the coordinator then goes on there. Rounds that "
        "came after the backup are run again. Sites refuse the coordinator of before, should it still run.",
        ("learner restore study.tar --workdir=runs/study",),
        (
            Flag("workdir", str, "the folder to make; it must be new, or empty"),
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        words="FILE",
    ),
    "forecast": Command(
        "what a study will take: bytes, memory, seconds a round, hours",
        "Says what a study will take before it is started: bytes for each site and in all, which are exact; memory of "
        "each process and seconds a round, which are estimates. Where the study's tables lie here they are read; else "
        "the widest model is taken. A run says the same as it begins, and at its end how it came out.",
        (
            "learner forecast --config=readmission --sites=4 --line_mbit=20",
            "learner forecast --config=readmission --config.rounds=100 --config.algorithm=scaffold "
            "--config.algorithm.local_lr=0.05",
        ),
        (
            Flag("sites", str, "names of the sites that take part, by commas, or how many (default: the config's)"),
            Flag("line_mbit", float, "of each site's line, megabits a second (default: federation.line_mbit)"),
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        config=True,
    ),
    "invite": Command(
        "let one more site take part in a study that runs",
        "Has the coordinator of a running study make a join code for one more site. Once it has joined, the site "
        "encodes its table by what the first sites' sums gave, and takes part from the next round on. At a broker: "
        "a join code for one more coordinator.",
        ("learner invite east --workdir=runs/study",),
        (Flag("workdir", str, "the coordinator's folder"),),
        words="SITE",
    ),
    "revoke": Command(
        "take a site off a study's roster, at once",
        "Takes a site off the roster of a coordinator: its key stops working and its open connection is dropped. "
        "The study goes on with the others; what the site has added to the model so far stays in it.",
        ("learner revoke west --workdir=runs/study --reason='its contract ended'",),
        (
            Flag("workdir", str, "the coordinator's folder"),
            Flag("reason", str, "why, for the coordinator's record"),
        ),
        words="SITE",
    ),
    "rotate": Command(
        "give this site new keys",
        "Makes new keys for this site and has the coordinator go over to them; the old ones work until the new ones "
        "have been used, and no longer. Stop the site's worker first, and start it again after. Stopped halfway, the "
        "same command goes on.",
        ("learner rotate --workdir=learner-site",),
        (Flag("workdir", str, "folder of this site's keys and state", "runs/site"), *_PROXY),
    ),
    "join": Command(
        "take part in a study with this site's data",
        "Takes part in a study with the data of this site. The join code is asked for, or read from a file; it never "
        "stands on the command line, where others on this machine could read it. The data stay here.",
        ("learner join --data=stays.csv", "learner join --join_file=code.txt --data=stays.csv --workdir=learner-site"),
        (
            Flag("join_file", str, "file that holds the join code (default: it is asked for)"),
            Flag("data", str, "this site's table (CSV, Parquet, or a query in .sql)"),
            Flag("site", str, "the name that the join code was made for (default: that of the table's file)"),
            Flag("workdir", str, "folder of this site's keys and state", "runs/site"),
            *_PROXY,
            Flag(
                "release_histograms",
                bool,
                "agree that counts of told chances leave, where the study asks for it",
                False,
            ),
            _PROFILE,
            Flag("with_parent", bool, "leave when standard input ends: for whoever starts workers", False),
            Flag("json", bool, "the last line of stdout is one JSON object; words for people go to stderr", False),
        ),
    ),
    "doctor": Command(
        "what stands in this site's way, and what to mend",
        "Looks at all that a site stands on before it joins, or when it does not get through: the coordinator's "
        "address, port, key and clock, and this machine's disk, table and devices. Uses no join code up, and leaves "
        "nothing behind. Ends with 1 where something is to be mended.",
        (
            "learner doctor --join_file=code.txt --config=readmission --data=stays.csv",
            "learner doctor --workdir=learner-site --proxy=http://proxy.example.org:3128",
        ),
        (
            Flag("join_file", str, "file that holds the join code, where this site has not joined yet"),
            Flag("data", str, "this site's table (CSV or Parquet); with --config: does it fit the study?"),
            Flag("workdir", str, "folder of this site's keys and state", "runs/site"),
            *_PROXY,
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        config=True,
    ),
    "data": Command(
        "public data sets; does our table fit a study? which stays are a cohort?",
        "list: the data sets that can be fetched, with licence and citation. fetch NAME: gets one, goes on where it "
        "stopped. check: does this table fit what a study asks for? cohort PATH: finds the index stays and their "
        "outcomes in a hospital's records (MEDS, OMOP or FHIR; which, is guessed and said). Nothing leaves.",
        (
            "learner data cohort /data/omop --cohort=heart_failure_readmission --out=cohort.csv",
            "learner data cohort postgresql://reader@host/omop --schema=cdm --cohort=heart_failure_readmission",
            "learner data list",
            "learner data fetch diabetes130",
            "learner data check --config=readmission --data=stays.csv",
        ),
        (
            Flag("data", str, "check: the table (CSV or Parquet)"),
            Flag(
                "cohort", str, "cohort: a rule's file, or the name of a shipped one (default: every shipped one, told)"
            ),
            Flag("door", str, "cohort: meds, omop or fhir (default: guessed by what is there)"),
            Flag("schema", str, "cohort: the schema of OMOP's tables in a data base"),
            Flag("out", str, "cohort: the CSV to write"),
            Flag(
                "features",
                str,
                "cohort: the CSV to write of what is known of each stay at its discharge; beside it, a cohort file",
            ),
            Flag("events", bool, "cohort: write a column 'history', coded events in time for a sequence model", False),
            Flag("into", str, "fetch: the folder to put it in (default: LEARNER_DATA, else the user's cache)"),
            Flag("json", bool, "one JSON object in place of words", False),
        ),
        config=True,
        words="list | fetch NAME | check [PATH] | cohort PATH",
    ),
}

GROUPS = {
    "for researchers": ("simulate", "local", "compare", "report", "predict", "recalibrate", "bench"),
    "for who runs a study": ("forecast", "coordinator", "broker", "invite", "revoke", "backup", "restore"),
    "for sites: who has the data": ("data", "doctor", "join", "rotate"),
}


_TABLE_ONLY = ("data", "doctor")
"""Commands that read of a config what a table is to hold: its other fields are not shown."""


def overview() -> str:
    """`learner --help`."""
    lines = ["One model from the data of many hospitals. The data stay; model updates travel.", ""]
    lines += ["  learner COMMAND [--flags]", ""]
    for who, names in GROUPS.items():
        lines += [f"{who}", *(f"  {name:<12} {COMMANDS[name].line}" for name in names), ""]
    lines += ["to begin", "  learner simulate --config=readmission", "  learner COMMAND --help", ""]
    lines += ["  --version    versions of learner, jax and Python"]
    return "\n".join(lines)


def command(name: str) -> str:
    """`learner NAME --help`."""
    this = COMMANDS[name]
    usage = ["learner", name, *(["--config=FILE|NAME"] if this.config else []), *([this.words] if this.words else [])]
    lines = [f"  {' '.join(usage)} [--flags]", "", *textwrap.wrap(this.about, 96), "", "examples"]
    for example in this.examples:
        wrapped = textwrap.wrap(example, 92, break_long_words=False, break_on_hyphens=False)
        lines.append("  " + " \\\n    ".join(wrapped))
    lines += ["", "flags"]
    rows = [("--config", f"a file, or the name of a shipped config: {', '.join(shipped())}")] if this.config else []
    rows += [(_shown(flag), _told(flag)) for flag in this.flags]
    rows += (
        [("--config.a.b=VALUE", "any field of the config, below")] if this.config and name not in _TABLE_ONLY else []
    )
    width = max(20, *(len(left) for left, _ in rows))
    for left, right in rows:
        first, *rest = textwrap.wrap(right, max(40, 117 - width)) or [""]
        lines += [f"  {left:<{width}} {first}".rstrip(), *(f"  {'':<{width}} {more}" for more in rest)]
    if this.config and name not in _TABLE_ONLY:
        lines += ["", "fields of the config, with their defaults", *_fields()]
    return "\n".join(lines)


def _shown(flag: Flag) -> str:
    if flag.kind is bool:
        return f"--no{flag.name}" if flag.default else f"--{flag.name}"
    if flag.kind is list:
        return f"--{flag.name}=NAME=VALUE"
    return f"--{flag.name}={'N' if flag.kind is int else 'FILE' if flag.name.endswith('_file') else flag.name.upper()}"


def _told(flag: Flag) -> str:
    """Its help, with its default where it has one to name."""
    plain = flag.kind is bool or flag.default is None
    return flag.help if plain else f"{flag.help} (default: {flag.default})"


def _fields() -> list[str]:
    """What `--config.` reaches. A method's fields are its own: a wrong one is answered with those that there are."""
    lines = []
    for field in dataclasses.fields(Study):
        default = field.default
        if isinstance(default, Data | Compute | Engine | Federation | Release | Checkpoint):
            inner = (f"{field.name}.{one.name}={_value(one.default)}" for one in dataclasses.fields(default))
            lines += textwrap.wrap(", ".join(inner), 92)
        else:
            lines.append(f"{field.name}={'...' if default is dataclasses.MISSING else _value(default)}")
    first = [line for line in lines if "." not in line.partition("=")[0]]
    rest = [line for line in lines if line not in first]
    return [f"  {line}" for line in (*textwrap.wrap(", ".join(first), 92), *rest, *_METHOD)]


def _value(value: object) -> str:
    return value.name if isinstance(value, Spec) else str(value) if value != "" else '""'


_METHOD = (
    "algorithm.FIELD, aggregator.FIELD, model.FIELD, task.FIELD: those of the method named;",
    "a wrong name is answered with what there is. before, after: optax's, such as",
    "  --config.before='clip_by_global_norm(max_norm=1.0)'",
)
