"""What a user installs: the wheel and what lies in it, the constraints, the public names."""

from __future__ import annotations

import configparser
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile

import jaxtyping
import pytest

# What users may lean on. A name that goes from here breaks someone's notebook: say it in CHANGELOG.md.
PUBLIC = """
    Aggregator Algorithm Batch Checkpoint Compute Data Engine Event Federation LearnerError Metric Model Pass Release
    Report Round Run Session Spec Study Task accuracy auprc auroc brier columnwise coordinate fedadagrad fedadam
    fedavg fedavgm fedprox fedyogi join load local log_loss logistic mean median mlp newton optimizer parquet pl protein
    protein_net proteins readmission ridge scaffold simulate table transform
""".split()


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(root)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_learner_jax_alone(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {"learner_jax", "learner_jax-0.1.0.dist-info"}


def test_the_wheel_holds_every_file_of_the_package(wheel, root):
    """All that git would hold: modules, styles, templates, samples, py.typed; configs inside."""
    here = {
        str(path.relative_to(root))
        for path in (root / "learner_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    kinds = ("*.py", "*.sql", "cohorts/*.yaml", "codes/*.csv")
    configs = {f"learner_jax/{path.relative_to(root)}" for kind in kinds for path in (root / "configs").glob(kind)}
    assert configs
    assert "learner_jax/py.typed" in here
    assert "learner_jax/samples/diabetes130.parquet" in here
    assert "learner_jax/samples/pbmc10k_cite_2000.h5ad" in here
    inside = {name for name in wheel.namelist() if name.startswith("learner_jax/")}
    assert inside == here | configs


def test_the_wheel_has_one_script_and_says_its_licences(wheel):
    info = "learner_jax-0.1.0.dist-info"
    entries = configparser.ConfigParser()
    entries.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert {section: dict(entries[section]) for section in entries.sections()} == {
        "console_scripts": {"learner": "learner_jax.cli.main:main"}
    }
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/NOTICE"} <= set(wheel.namelist())


def test_the_script_is_there():
    module, _, name = "learner_jax.cli.main:main".partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_constraints_name_no_place(root):
    """No index address, no find-links, no path of a machine; a pin for each dependency that pyproject names."""
    text = (root / "constraints.txt").read_text()
    assert not re.search(r"://|--|/\w+/|@ ", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    pinned = {re.split(r"[=\s;]", line)[0] for line in text.splitlines() if line and not line.startswith("#")}
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    names = {re.split(r"[\[<>=,;\s]", one)[0].lower() for one in wanted}
    assert names - pinned == set()
    assert "jax==0.10" in text and "jax==0.12" in text


def test_public_names_are_those_listed_here():
    import learner_jax

    assert sorted(learner_jax.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(learner_jax))


def test_public_names_mean_the_same_whatever_was_imported_before():
    """A module of the same name, once imported, must not hide a public name; each has a docstring."""
    code = f"""
import types
import learner_jax.build, learner_jax.api, learner_jax.engines.simulator
import learner_jax as lr
for name in {PUBLIC}:
    found = getattr(lr, name)
    module = isinstance(found, types.ModuleType)
    assert module == (name in ("pl", "protein")), f"{{name}} is hidden by the module {{found.__name__}}"
    assert found.__doc__, f"{{name}} has no docstring"
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr


def test_version_is_one(root):
    import learner_jax

    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert learner_jax.__version__ == project["version"]
    assert f"version: {project['version']}" in (root / "CITATION.cff").read_text()
    assert f"## {project['version']}" in (root / "CHANGELOG.md").read_text()


def test_annotations_are_checked_while_tests_run():
    """The import hook of conftest is at work: a wrong type is refused at the call."""
    from learner_jax import trees

    with pytest.raises(jaxtyping.TypeCheckError):
        trees.rebuild({}, 3)  # pyright: ignore[reportArgumentType]
