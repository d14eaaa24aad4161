"""Config files: found by path or by the name of a shipped one, run, and every error in them named with file and line.

A config is a Python file with `def study(): return lr.Study(...)` (or a module-level `study = lr.Study(...)`), or the
canonical JSON that a run has left.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path

from learner_jax.errors import ConfigError
from learner_jax.specs.study import Study, from_json
from learner_jax.specs.words import near


def shipped() -> dict[str, Path]:
    """Configs that come with the package: in it, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        found = {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}
        if found:
            return found
    return {}


def read(named: str | Path) -> Study:
    """The Study of a config file, as it stands there.

    Args:
      named: a path (.py or .json), or the name of a shipped config.

    Raises:
      ConfigError: no such file or name, or an error in it, with file and line.
    """
    ours = shipped()
    listed = f"shipped configs: {', '.join(ours)}" if ours else "no config is shipped here"
    path = Path(named)
    if not path.is_file() and str(named) in ours:
        path = ours[str(named)]
    if not path.is_file():
        place = path.parent if path.parent.is_dir() else None
        beside = {one.name: str(one) for one in place.glob("*.py")} if place and path.suffix else {}
        guess = near(path.name, beside, beside.__getitem__) or near(str(named), ours) or f" ({listed})"
        raise ConfigError(f"no file or shipped config {str(named)!r}{guess}")
    if path.suffix == ".json":
        try:
            return from_json(path.read_text())
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error
    return _run(path)


def _run(path: Path) -> Study:
    name = f"_learner_config_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: expected a Python file (.py) or JSON (.json)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of a config look themselves up
    try:
        spec.loader.exec_module(module)
        study = getattr(module, "study", None)
        study = study() if callable(study) else study
    except Exception as error:
        raise ConfigError(_place(error, path)) from error
    finally:
        del sys.modules[name]
    if not isinstance(study, Study):
        came = "nothing of that name" if study is None else type(study).__name__
        raise ConfigError(f"{path}: expected `def study():` that returns a learner_jax.Study, got {came}")
    return study


def _place(error: Exception, path: Path) -> str:
    """'configs/x.py:12: NameError: ...' of an error raised while a config ran."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(path) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == str(path):
            line = frame.lineno
    words = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
    return f"{path}:{line}: {kind}{words}" if line else f"{path}: {kind}{words}"
