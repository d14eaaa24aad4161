"""`learner COMMAND`: a line and an exit code for each mistake, help at once, a run from its first line to its last."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from learner_jax.cli import doors, help
from learner_jax.cli.main import main
from learner_jax.data import fetch
from learner_jax.errors import DataError, StudyError
from learner_jax.events import Event
from learner_jax.specs import Study

ROOT = Path(__file__).parents[2]
RESULT = {"study": {}, "kind": "simulation", "rounds": 2, "curve": [{"round": 2, "valid/auroc": 0.6}]}
ENDED = {**RESULT, "seconds": 1.5, "bytes_up": 7, "bytes_down": 8, "weights_sha256": "cd" * 32}


@pytest.fixture(autouse=True)
def aside(monkeypatch, tmp_path):
    """A folder of its own, and an environment that is put back."""
    monkeypatch.chdir(tmp_path)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def engine(monkeypatch):
    """An engine that tells of two rounds; the table and the page are given, too."""
    calls = []

    def simulate(study, workdir, on_event, resume, profile):
        calls.append((study, workdir, resume))
        workdir.mkdir(parents=True, exist_ok=True)
        on_event(Event("start", study.name))
        for number in (1, 2):
            on_event(Event("round_closed", study.name, number, None, {"metrics": {"valid/auroc": 0.6}, "seconds": 1.0}))
        on_event(Event("done", study.name, None, None, {"result": ENDED}))

    monkeypatch.setattr(doors, "simulate", simulate)
    monkeypatch.setattr(doors, "table", lambda result: "TABLE")
    monkeypatch.setattr(doors, "page", lambda result, path: path.write_text("PAGE"))
    return calls


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    told = capsys.readouterr()
    return code, told.out, told.err


def learner(*arguments: str, module: str = "learner_jax", **options) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, **options)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("simulat --config=x", "learner: no command 'simulat' (did you mean simulate?)"),
        ("xyzzy", "learner: no command 'xyzzy' (there are simulate, local,"),
        ("--confg=x", "learner: no flag here '--confg=x'"),
        ("simulate --workdri=x", "learner simulate: --workdri: no such flag (did you mean --workdir?)"),
        ("simulate --confg.rounds=3", "learner simulate: --confg.rounds: no such flag (did you mean --config.rounds?)"),
        ("simulate --jsn", "learner simulate: --jsn: no such flag (did you mean --json"),
        ("simulate --zzzz", "learner simulate: --zzzz: no such flag (--help lists them)"),
        ("simulate --json=maybe", "learner simulate: --json: expected true or false, got 'maybe'"),
        ("local --sites=four", "learner local: --sites: expected a whole number, got 'four'"),
        ("local --sites=0 --config=readmission", "learner local: --sites: expected at least 1, got 0"),
        ("local --sites", "learner local: --sites: expected a value, got nothing"),
        (
            "coordinator --port=70000 --config=readmission",
            "learner coordinator: --port: expected 0 to 65535",
        ),
        ("coordinator --config=readmission", "learner coordinator: --sites is missing: expected the sites' names"),
        ("simulate", "learner simulate: --config is missing: expected a file or a name (shipped configs: "),
        (
            "simulate --config",
            "learner simulate: --config: expected a file or the name of a shipped config",
        ),
        (
            "simulate readmission",
            "learner simulate: expected flags only, got 'readmission' (did you mean --con",
        ),
        (
            "simulate --config=readmision",
            "learner simulate: no file or shipped config 'readmision' (did",
        ),
        (
            "simulate --config=readmission --config.rouds=3",
            "learner simulate: rouds: a study has no field 'rouds'",
        ),
        (
            "simulate --config=readmission --config.algorithm=scafold",
            "learner simulate: algorithm: no algorithm 'sc",
        ),
        ("join CODE", "learner join: a join code never stands on the command line"),
        ("doctor CODE", "learner doctor: a join code never stands on the command line"),
        ("doctor --config.rounds=3", "learner doctor: --config is missing"),
        ("doctor --join_file=nowhere", "learner doctor: --join_file: no file 'nowhere'"),
        ("join --code=X", "learner join: --code: no such flag"),
        ("join", "learner join: --data is missing: expected this site's table"),
        ("join --data=nowhere.csv", "learner join: --data: no file 'nowhere.csv'"),
        ("join --join_file=nowhere --data=.", "learner join: --join_file: no file 'nowhere'"),
        ("report", "learner report: expected one run's folder, got 0: learner report RUN"),
        ("compare one", "learner compare: expected the folders of two runs or more, got 1"),
        ("data", "learner data: expected list, fetch NAME, check or cohort PATH, got nothing"),
        ("data chek", "learner data: expected list, fetch NAME, check or cohort PATH, got chek (did you mean check?)"),
        ("data fetch", "learner data: expected one name: learner data fetch NAME"),
        ("data check --config=readmission", "learner data: expected one table, got 0"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(capsys, line, words):
    code, out, err = run(capsys, *line.split())
    assert (code, out) == (2, "")
    assert err.startswith(words)
    assert err.count("\n") == 1 and err.endswith("\n")


@pytest.mark.parametrize("line", ["simulate --confg.rounds=3", "local --config=readmission --config.engine.plan=lane"])
def test_no_traceback_reaches_a_terminal(line):
    done = learner(*line.split())
    assert done.returncode == 2
    assert done.stderr.startswith("learner ") and done.stderr.count("\n") == 1 and done.stdout == ""


def test_what_an_engine_says_is_one_line_and_code_1(capsys, monkeypatch):
    def simulate(*ignored):
        raise StudyError("runs/x: expected the study\ntest")

    monkeypatch.setattr(doors, "simulate", simulate)
    code, out, err = run(capsys, "simulate", "--config=readmission")
    assert (code, out, err) == (1, "", "learner simulate: runs/x: expected the study test\n")
    code, out, err = run(capsys, "simulate", "--config=readmission", "--json")
    assert code == 1
    assert json.loads(out.splitlines()[-1]) == {"command": "simulate", "error": "runs/x: expected the study\ntest"}


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(doors, "simulate", lambda *ignored: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["simulate", "--config=readmission"])


# ---- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["", "--help", "help", "simulate --help", "help simulate", "join -h", "local --sites=3 --help"]
)
def test_help_helps(capsys, line):
    code, out, err = run(capsys, *line.split())
    assert (code, err) == (0, "")
    name = next((word for word in line.split() if word in help.COMMANDS), None)
    words = ["examples", "flags", f"learner {name}"] if name else list(help.COMMANDS)
    assert all(word in out for word in words)
    assert max(map(len, out.splitlines())) <= 120


def _row_of(lines: list[str], begins: str) -> str:
    """A flag's line, and those that it goes on in."""
    (at,) = [at for at, line in enumerate(lines) if line.startswith(begins)]
    more = itertools.takewhile(lambda line: line.startswith("    "), lines[at + 1 :])
    return " ".join([lines[at], *(line.strip() for line in more)])


def test_help_names_every_shipped_config_and_every_default():
    ours = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    assert len(ours) > 1
    for name, command in help.COMMANDS.items():
        lines = help.command(name).splitlines()
        if command.config:
            line = _row_of(lines, "  --config ")
            assert all(one in line for one in ours)
        for flag in command.flags:
            if flag.kind is not bool and flag.default is not None:
                line = _row_of(lines, f"  --{flag.name}=")
                assert line.endswith(f"(default: {flag.default})") and line.count("(default") == 1
    assert "(default: runs/site)" in help.command("join")


def test_examples_in_help_are_lines_that_we_understand():
    from learner_jax.cli.flags import parse

    for command in help.COMMANDS.values():
        for example in command.examples:
            parse(example.split()[2:], command.flags, command.config)


def test_every_command_stands_in_one_group():
    assert sorted(name for names in help.GROUPS.values() for name in names) == sorted(help.COMMANDS)


@pytest.mark.parametrize("line", ["--help", "simulate --help", "--version", "simulat", "simulate --confg=3"])
def test_light_answers_load_nothing_heavy(line):
    code = (
        f"import sys; from learner_jax.cli.main import main; main({line.split()!r})\n"
        "heavy = {'jax', 'jaxlib', 'zmq', 'pandas', 'numpy', 'flax', 'optax', 'orbax', 'rich', 'jinja2'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


def test_version(capsys):
    code, out, _ = run(capsys, "--version")
    assert code == 0
    assert {"learner-jax", "jax", "python"} <= {line.split()[0] for line in out.splitlines()}


# ---- a run -----------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_table_report_and_its_path(capsys, engine):
    code, out, err = run(capsys, "simulate", "--config=readmission", "--config.rounds=2", "--workdir=here")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "readmission: begins"
    assert out.splitlines()[-3:] == ["TABLE", "", "The report: here/report.html"]
    assert Path("here/report.html").read_text() == "PAGE"
    ((study, workdir, resume),) = engine
    assert isinstance(study, Study) and study.rounds == 2 and str(workdir) == "here" and resume is True


def test_json_is_the_last_line_of_stdout_and_all_of_it(capsys, engine):
    code, out, err = run(
        capsys, "simulate", "--config=readmission", "--json", "--noresume", "--noreport", "--workdir=x"
    )
    assert code == 0 and "TABLE" in err and not Path("x/report.html").exists()
    (line,) = out.splitlines()
    assert json.loads(line) == {
        "study": "readmission",
        "algorithm": "fedprox",
        "rounds": 2,
        "seconds": 1.5,
        "bytes_up": 7,
        "bytes_down": 8,
        "metrics": {"valid/auroc": 0.6},
        "weights_sha256": "cd" * 32,
    }
    assert engine[0][2] is False


def test_the_same_command_finds_its_folder_and_another_study_does_not(capsys, engine):
    run(capsys, "simulate", "--config=readmission")
    run(capsys, "simulate", "--config=readmission", "--config.engine.plan=sequential")
    run(capsys, "simulate", "--config=readmission", "--config.seed=1")
    first, second, third = (str(workdir) for _, workdir, _ in engine)
    assert first == second != third
    assert first.startswith("runs/readmission-fedprox-")


def test_the_thin_mains_are_the_same_mains():
    for module, command in (
        *((f"launch.{name}", name) for name in ("simulate", "local", "coordinator", "report", "compare")),
        ("sites.worker", "join"),
    ):
        done = learner("--wrong=1", module=module)
        assert (done.returncode, done.stderr) == (2, f"learner {command}: --wrong: no such flag (--help lists them)\n")


def test_help_of_the_thin_mains():
    assert learner("--help", module="launch.simulate").stdout == help.command("simulate") + "\n"


def test_a_join_code_comes_from_a_file_or_stdin(capsys, monkeypatch, tmp_path):
    codes = []
    monkeypatch.setattr(doors, "join", lambda code, data, workdir, site, *_: codes.append((code, workdir, site)))
    (tmp_path / "code.txt").write_text("  SECRET\n")
    (tmp_path / "stays.csv").write_text("a\n1\n")
    assert run(capsys, "join", "--join_file=code.txt", "--data=stays.csv")[0] == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("SECRET\n"))
    assert run(capsys, "join", "--data=stays.csv", "--workdir=w")[0] == 0
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "membership.json").touch()
    # it has joined: no code is asked for
    assert run(capsys, "join", "--data=stays.csv", "--workdir=w", "--site=north")[0] == 0
    assert codes == [("SECRET", Path("runs/site"), None), ("SECRET", Path("w"), None), (None, Path("w"), "north")]
    (tmp_path / "code.txt").write_text("")
    code, _, err = run(capsys, "join", "--join_file=code.txt", "--data=stays.csv")
    assert (code, err) == (1, "learner join: expected a join code, got nothing from code.txt\n")


@pytest.mark.parametrize(
    ("flag", "names"),
    [("--sites=3", ("site-1", "site-2", "site-3")), ("--sites=north, south", ("north", "south")), ("", ("h00", "h01"))],
)
def test_a_coordinator_knows_who_takes_part(capsys, monkeypatch, engine, flag, names):
    asked = []
    monkeypatch.setattr(doors, "coordinator", lambda study, workdir, tell, *rest: asked.append(rest))
    monkeypatch.setattr(doors, "result_of", lambda folder: RESULT)
    line = ["coordinator", "--config=readmission", "--host=0.0.0.0", "--port=7443", "--workdir=w", "--noreport"]
    line += ["--address=there.example"]
    code, _, err = run(capsys, *line, *([flag] if flag else ["--config.data.sites=h00,h01"]))
    assert (code, err) == (0, "")
    assert asked == [(True, names, "0.0.0.0", 7443, "there.example", None, None)]


ENDLESS = """
    import sys, time
    from learner_jax.cli import doors
    from learner_jax.cli.main import main
    from learner_jax.events import Event

    def simulate(study, workdir, tell, resume, profile):
        for number in (1, 2):
            tell(Event("round_closed", study.name, number, None, {"seconds": 1.0}))
        workdir.mkdir()
        (workdir / "told").touch()
        while True:
            time.sleep(0.05)

    doors.simulate = simulate
    sys.exit(main(["simulate", "--config=readmission", *sys.argv[1:]]))
"""


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_says_where_it_stopped(tmp_path, sign, code):
    line = [sys.executable, "-c", textwrap.dedent(ENDLESS), f"--workdir={tmp_path / 'run'}", "--json"]
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while not (tmp_path / "run" / "told").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(sign)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert err.splitlines()[-1] == "stopped after round 2; the same command goes on"
    assert "Traceback" not in err
    last = json.loads(out.splitlines()[-1])
    assert last["rounds"] == 2 and last["stopped"] is True


# ---- commands that look at something ---------------------------------------------------------------------------------


def test_report_and_compare_read_finished_runs(capsys, monkeypatch, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(doors, "table", lambda result: f"TABLE {result['rounds']}")
    monkeypatch.setattr(doors, "page", lambda result, path: path.write_text("PAGE"))
    monkeypatch.setattr(doors, "compare", lambda results: f"COMPARED {len(results)}")
    assert run(capsys, "report", "a")[1] == "TABLE 2\n\nThe report: a/report.html\n"
    assert run(capsys, "report", "--workdir=a", "--out=out.html", "--json")[0] == 0
    assert Path("out.html").read_text() == "PAGE"
    assert run(capsys, "compare", "a", "b")[1] == "COMPARED 2\n"
    assert run(capsys, "compare", "a", "b", "--out=new/both.html")[1] == "COMPARED 2\n\nThe page: new/both.html\n"
    assert "2 runs side by side" in Path("new/both.html").read_text()
    assert [one["run"] for one in json.loads(run(capsys, "compare", "a", "b", "--json")[1])] == ["a", "b"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "expected the result of a finished run"),
        ({"metrics.jsonl": ""}, "expected a finished run, found one that has not finished"),
        ({"result.json": "{"}, "got no JSON"),
    ],
)
def test_a_folder_without_a_finished_run_is_one_line(capsys, tmp_path, files, words):
    (tmp_path / "a").mkdir()
    for name, text in files.items():
        (tmp_path / "a" / name).write_text(text)
    code, out, err = run(capsys, "report", "a")
    assert (code, out) == (1, "") and err.startswith("learner report: a") and words in err and err.count("\n") == 1


def test_data_check_answers_in_words(capsys, monkeypatch):
    monkeypatch.setattr(doors, "check_table", lambda study, path: ["stays.csv: weight is empty in 96 of 100 rows"])
    code, out, _ = run(capsys, "data", "check", "--config=readmission", "--data=stays.csv")
    assert code == 0
    assert out.splitlines()[-1] == "stays.csv fits what the study readmission asks for. Nothing was sent."

    def wrong(study, path):
        raise DataError("stays.csv: column age is missing")

    monkeypatch.setattr(doors, "check_table", wrong)
    code, out, err = run(capsys, "data", "check", "stays.csv", "--config=readmission")
    assert (code, out, err) == (1, "", "learner data: stays.csv: column age is missing\n")
    code, out, _ = run(capsys, "data", "check", "stays.csv", "--config=readmission", "--json")
    assert code == 1 and json.loads(out)["problem"] == "stays.csv: column age is missing"


def test_data_list_and_fetch(capsys, monkeypatch, tmp_path):
    code, out, _ = run(capsys, "data", "list")
    assert code == 0
    assert "diabetes130      Diabetes 130-US Hospitals" in out and "CC BY 4.0; cite: Strack" in out
    assert {"name", "licence", "citation"} <= set(json.loads(run(capsys, "data", "list", "--json")[1])[0])
    source = tmp_path / "published.csv"
    source.write_text("a,b\n1,2\n")
    one = fetch.PublicSet("ours", "Our set", source.as_uri(), "ours.csv", "", "CC BY 4.0", "Us 2026", "")
    monkeypatch.setitem(fetch.SETS, "ours", one)
    code, out, err = run(capsys, "data", "fetch", "ours", "--into=here")
    assert (code, err) == (0, "") and "CC BY 4.0" in out and out.endswith("here/ours.csv\n")
    assert Path("here/ours.csv").read_text() == "a,b\n1,2\n"
    again = json.loads(run(capsys, "data", "fetch", "ours", "--into=here", "--json")[1])
    assert again["downloaded"] is False
    code, out, err = run(capsys, "data", "fetch", "diabetes13")
    assert (code, out) == (1, "") and "near: diabetes130" in err


def test_a_build_without_a_part_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "learner_jax.data.fetch", None)
    code, _, err = run(capsys, "data", "list")
    assert code == 1 and err.count("\n") == 1
