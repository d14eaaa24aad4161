"""The arms of `benchmarks.protein_peers` that are not ours: the training mean, scikit-learn, and scvi-tools' totalVI.

    python -m benchmarks.protein_by_hand --arm=ridge --file=FILE.h5ad --into=FOLDER        one arm, one JSON line
    PYTHON_WITH_SCVI -m benchmarks.protein_by_hand --arm=totalvi --file=FILE.h5ad --into=FOLDER

It shares no code with the package. Targets are log1p of a protein's count less the cell's mean of it over the proteins;
test cells are the first fifth of `numpy.random.default_rng(0).permutation(cells)`.

ridge, knn, mlp   log1p of 1e4 x count / total, 50 components (TruncatedSVD of the training cells), z-scored but for
                  knn, to which large components must stay large; alpha and neighbours by a tenth of the training cells;
                  the network 128-64, ReLU, Adam 1e-3, batches of 128, early stopping
totalvi           as its tutorial "Integration of CITE-seq and scRNA-seq data" does: all cells in one object, with
                  test cells as a batch of their own whose proteins are all 0, which totalVI takes for missing; latent
                  normal, two layers of the decoder; proteins are 25 samples' mean with the training batch asked for,
                  then log1p and less the cell's mean. It sees the RNA of test cells while it trains; no other arm does.
                  Two predictions: with background, as that tutorial compares with what was measured, and without.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ALPHAS, NEIGHBOURS = (1.0, 10.0, 100.0, 1000.0), (5, 10, 20, 40, 80)


class Split(NamedTuple):
    """What an arm starts from.

    Attributes:
      adata: AnnData, all cells.
      proteins: names, ascending.
      counts: float64[n, P], of the proteins in that order; training cells' are shuffled under the plant.
      train, test: int64, places of the cells.
    """

    adata: Any
    proteins: list[str]
    counts: np.ndarray
    train: np.ndarray
    test: np.ndarray


def clr(counts: np.ndarray) -> np.ndarray:
    """log1p less the cell's mean."""
    logs = np.log1p(counts)
    return logs - logs.mean(axis=1, keepdims=True)


def read(file: str, plant: str | None = None) -> Split:
    """Cells of a .h5ad with `obsm["protein_expression"]`, parted; under the plant training cells swap proteins."""
    import anndata

    adata = anndata.read_h5ad(file)
    table: Any = adata.obsm["protein_expression"]
    proteins = sorted(map(str, table.columns))
    counts = table[proteins].to_numpy(np.float64)
    order = np.random.default_rng(0).permutation(len(counts))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    if plant == "shuffled":
        counts[train] = counts[np.random.default_rng(1).permutation(train)]
    return Split(adata, proteins, counts, train, test)


# ---- the arms --------------------------------------------------------------------------------------------------------


def components(split: Split, scaled: bool = True, count: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """(training cells' scores, test cells'), z-scored on the former if `scaled`."""
    from scipy import sparse
    from sklearn.decomposition import TruncatedSVD

    counts = sparse.csr_matrix(split.adata.X, dtype=np.float64)
    values = sparse.diags(1e4 / np.asarray(counts.sum(axis=1)).ravel()) @ counts
    values = sparse.csr_matrix(values)
    values.data = np.log1p(values.data)
    svd = TruncatedSVD(min(count, split.adata.n_vars - 1), n_iter=7, random_state=0)
    train: Any = svd.fit_transform(values[split.train])
    mean, deviation = (train.mean(axis=0), train.std(axis=0)) if scaled else (0.0, 1.0)
    return (train - mean) / deviation, (svd.transform(values[split.test]) - mean) / deviation


def mean(split: Split, seed: int) -> dict[str, np.ndarray]:
    """What knows nothing of a cell."""
    told = clr(split.counts[split.train]).mean(axis=0)
    return {"mean": np.tile(told, (len(split.test), 1))}


def _chosen(split: Split, seed: int, settings: Any, make: Callable[[Any], Any], name: str) -> dict[str, np.ndarray]:
    """The setting that is best on a tenth of the training cells, fitted once more to all of them."""
    x, ours = components(split, scaled=name != "knn")
    y = clr(split.counts[split.train])
    held = np.random.default_rng(seed).permutation(len(x)) < len(x) // 10
    errors = []
    for setting in settings:
        told = make(setting).fit(x[~held], y[~held]).predict(x[held])
        errors.append(np.mean((told - y[held]) ** 2))
    return {name: make(settings[int(np.argmin(errors))]).fit(x, y).predict(ours)}


def ridge(split: Split, seed: int) -> dict[str, np.ndarray]:
    """scikit-learn's Ridge."""
    from sklearn.linear_model import Ridge

    return _chosen(split, seed, ALPHAS, lambda alpha: Ridge(alpha=alpha), "ridge")


def knn(split: Split, seed: int) -> dict[str, np.ndarray]:
    """scikit-learn's KNeighborsRegressor."""
    from sklearn.neighbors import KNeighborsRegressor

    return _chosen(split, seed, NEIGHBOURS, lambda k: KNeighborsRegressor(n_neighbors=k), "knn")


def mlp(split: Split, seed: int) -> dict[str, np.ndarray]:
    """scikit-learn's MLPRegressor."""
    from sklearn.neural_network import MLPRegressor

    x, ours = components(split)
    settings: dict[str, Any] = {"batch_size": 128, "learning_rate_init": 1e-3, "early_stopping": True}
    net = MLPRegressor(hidden_layer_sizes=(128, 64), random_state=seed, **settings)
    return {"mlp": np.asarray(net.fit(x, clr(split.counts[split.train])).predict(ours))}


def totalvi(split: Split, seed: int, epochs: int | None = None) -> dict[str, np.ndarray]:
    """scvi-tools; see the module."""
    import anndata
    import pandas as pd
    import scvi  # pyright: ignore[reportMissingImports]

    scvi.settings.seed = seed
    shown = split.counts.copy()
    shown[split.test] = 0
    batch = np.full(len(shown), "measured", object)
    batch[split.test] = "missing"
    adata = anndata.AnnData(split.adata.X.copy(), obs=pd.DataFrame({"batch": batch}, index=split.adata.obs_names))
    adata.obsm["protein_expression"] = pd.DataFrame(shown, index=adata.obs_names, columns=pd.Index(split.proteins))
    scvi.model.TOTALVI.setup_anndata(adata, batch_key="batch", protein_expression_obsm_key="protein_expression")
    model = scvi.model.TOTALVI(adata, latent_distribution="normal", n_layers_decoder=2)
    model.train(max_epochs=epochs, accelerator="cpu")
    found = {"epochs": np.asarray(len(model.history["elbo_train"]))}
    for name, background in (("totalvi", True), ("totalvi_without_background", False)):
        _, denoised = model.get_normalized_expression(
            indices=split.test, n_samples=25, return_mean=True, transform_batch="measured",
            include_protein_background=background, sample_protein_mixing=False,
        )  # fmt: skip
        found[name] = clr(np.asarray(denoised[split.proteins], np.float64))
    return found


ARMS: dict[str, Callable[..., dict[str, np.ndarray]]] = {
    "mean": mean, "ridge": ridge, "knn": knn, "mlp": mlp, "totalvi": totalvi,
}  # fmt: skip
NEEDS = {"totalvi": ("scvi", "torch"), "mean": ()}


# ---- one arm in a process of its own ---------------------------------------------------------------------------------


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def digest(values: Any) -> str:
    """Of names, or of numbers to nine places."""
    told = np.round(values, 9).tolist() if isinstance(values, np.ndarray) else list(values)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def about(proteins: list[str], barcodes: Any, y: np.ndarray) -> dict[str, Any]:
    """What all arms must say alike: which proteins, which test cells, and what was measured there."""
    return {"proteins": proteins, "test_sha256": digest(barcodes), "measured_sha256": digest(y)}


def keep(into: Path, found: dict[str, np.ndarray], y: np.ndarray) -> list[str]:
    """Writes predictions float64[n, P], and what was measured; the names of the former."""
    names = [name for name, told in found.items() if told.shape == y.shape]
    arrays: Any = {name: found[name] for name in names}
    np.savez(into, measured=y, **arrays)
    return names


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of packages."""
    import importlib.metadata
    import platform

    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--arm", choices=ARMS, required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--into", type=Path, required=True, help="an .npz that predictions are written to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="of totalVI; its own choice where none is given")
    parser.add_argument("--plant", choices=["shuffled"])
    given = parser.parse_args()
    try:
        import anndata  # noqa: F401  what is measured is the work

        for name in NEEDS.get(given.arm, ("sklearn.decomposition", "sklearn.neighbors", "sklearn.neural_network")):
            __import__(name)
    except ImportError as error:
        raise SystemExit(f"expected the packages of arm {given.arm} in {sys.executable}, got: {error}") from None
    imported, begun, used = peak(), time.perf_counter(), time.process_time()
    split = read(given.file, given.plant)
    more = {"epochs": given.epochs} if given.arm == "totalvi" else {}
    found = ARMS[given.arm](split, given.seed, **more)
    told: dict[str, Any] = {"wall_s": time.perf_counter() - begun, "cpu_s": time.process_time() - used}
    told |= {"peak": peak(), "imports_peak": imported}
    y = clr(split.counts[split.test])
    told["kept"] = keep(given.into, found, y)
    told |= about(split.proteins, split.adata.obs_names[split.test], y)
    told |= {"epochs": int(found["epochs"])} if "epochs" in found else {}
    packages = ("scvi-tools", "torch") if given.arm == "totalvi" else ("scikit-learn", "scipy")
    print(json.dumps({**told, "versions": versions(*packages, "anndata", "numpy")}))


if __name__ == "__main__":
    main()
