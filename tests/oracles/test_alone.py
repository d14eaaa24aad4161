"""The oracles are independent: they import NumPy, SciPy, scikit-learn, the standard library and one another."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import numpy as np

from tests.oracles.networks import gradient

HERE = Path(__file__).parent
ALLOWED = {"numpy", "scipy", "sklearn", *sys.stdlib_module_names}


def test_oracles_import_none_of_ours():
    files = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))
    assert len(files) >= 3
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] in ALLOWED or name.startswith("tests.oracles."), f"{path.name}: {name}"


def test_the_gradient_by_hand_is_the_slope():
    draw = np.random.default_rng(0)
    shapes = {"0/kernel": (3, 4), "0/bias": (4,), "1/kernel": (4, 1), "1/bias": (1,)}
    weights = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    x, y = draw.normal(size=(6, 3)), (draw.random(6) > 0.5).astype(float)
    _, grads = gradient(weights, x, y)
    for name, leaf in weights.items():
        for place in np.ndindex(*leaf.shape):
            up, down = ({**weights, name: leaf.copy()} for _ in range(2))
            up[name][place] += 1e-6
            down[name][place] -= 1e-6
            slope = (gradient(up, x, y)[0] - gradient(down, x, y)[0]) / 2e-6
            assert abs(slope - grads[name][place]) < 1e-8
