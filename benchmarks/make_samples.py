"""How the two sample files of `learner_jax/samples/` were made from what their publishers offer.

    python benchmarks/make_samples.py diabetes130 --source diabetic_data.csv --out DIR     (or the publisher's zip)
    python benchmarks/make_samples.py pbmc10k --source pbmc10k_protein_v3.h5ad --out DIR

Both commands end by comparing what they made with the file that is shipped, value by value. (Bytes may differ: another
version of pyarrow or HDF5 lays the same content out in another way.)

*diabetes130* reads the publisher's `diabetic_data.csv` (UCI Machine Learning Repository, data set 296), checked by its
sha256. The publisher removed the identity of the hospitals, so there is no column of sites to be had: `site` and
`split` are ours, artificial, one value a patient. They were drawn once (site with a skew by medical specialty and by
size, split 80/20) and are *carried* by the shipped file; this script takes them from there and makes all the rest anew.

*pbmc10k* reads the totalVI authors' filtered set (6,855 cells x 4,000 genes, counts, and 14 proteins in
`obsm["protein_expression"]`) of 10x Genomics' "10k PBMCs, TotalSeq-B, v3 chemistry": their files
`pbmc10k_harmo_rna.csv.gz` and `pbmc10k_harmo_pro.csv.gz` put into one AnnData file. Its sites and split are artificial
too, and are drawn here. The protein clusters, by which the sites are skewed, are scikit-learn 1.9's; another version
may draw others.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SAMPLES = Path(__file__).resolve().parents[1] / "learner_jax" / "samples"
DIABETES_SHA256 = "0689e7ec031237dc63031b938805c48377748761a3b26acab621567afa24df97"
COUNTS = (
    "time_in_hospital",
    "num_lab_procedures",
    "num_procedures",
    "num_medications",
    "number_outpatient",
    "number_emergency",
    "number_inpatient",
    "number_diagnoses",
)
IDS = ("admission_type_id", "discharge_disposition_id", "admission_source_id")
CELLS, GENES, TEST_CELLS, SITES, CLUSTERS = 2000, 1000, 400, 4, 8


def publishers_csv(source: Path) -> bytes:
    """`diabetic_data.csv`, from itself or from the publisher's zip (which may hold another zip), checked by sha256."""
    content = source.read_bytes()
    while content[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            wanted = [n for n in archive.namelist() if n.endswith(("diabetic_data.csv", ".zip"))]
            content = archive.read(sorted(wanted, key=lambda name: name.endswith(".zip"))[0])
    digest = hashlib.sha256(content).hexdigest()
    if digest != DIABETES_SHA256:
        raise SystemExit(f"expected diabetic_data.csv with sha256 {DIABETES_SHA256}, got {digest}")
    return content


def diabetes130(source: Path) -> pd.DataFrame:
    """101,766 encounters of 71,518 patients, 50 columns."""
    text = pd.read_csv(io.BytesIO(publishers_csv(source)), dtype=str, keep_default_na=False)
    text = text.iloc[np.argsort(text["encounter_id"].astype(np.int64).to_numpy(), kind="stable")].reset_index(drop=True)
    table = {}
    for name in text.columns.drop(["encounter_id", "patient_nbr", "examide", "citoglipton"]):
        if name in COUNTS:
            table[name] = text[name].astype(np.int16)
        else:
            table[name] = text[name].astype(np.int8) if name in IDS else text[name].astype("category")
    carried = pd.read_parquet(SAMPLES / "diabetes130.parquet", columns=["site", "split"])
    table["site"], table["split"] = carried["site"], carried["split"]
    table["order"] = np.arange(len(text), dtype=np.int32)
    table["patient"] = pd.factorize(text["patient_nbr"])[0].astype(np.int32)
    return pd.DataFrame(table)


def protein_clusters(proteins: np.ndarray) -> np.ndarray:
    """Cluster int[n] of every cell: k-means on the centred log ratio of its proteins, standardised per protein."""
    from sklearn.cluster import KMeans

    logs = np.log1p(proteins.astype(np.float64))
    ratio = logs - logs.mean(axis=1, keepdims=True)
    ratio = (ratio - ratio.mean(axis=0)) / ratio.std(axis=0)
    settings: dict[str, Any] = {"n_init": 10, "random_state": 0}
    return KMeans(CLUSTERS, **settings).fit_predict(ratio)


def pbmc10k(source: Path) -> Any:
    """2,000 cells x 1,000 genes with 14 proteins, four artificial sites."""
    import anndata  # pyright: ignore[reportMissingImports]
    import scipy.sparse as sp

    full: Any = anndata.read_h5ad(source)
    counts = sp.csr_matrix(full.X)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    logs = np.log1p(1e4 * counts.toarray() / totals[:, None])
    genes = np.sort(np.argsort(-logs.var(axis=0), kind="stable")[:GENES])
    cells = np.sort(np.random.default_rng(0).permutation(full.n_obs)[:CELLS])
    clusters = protein_clusters(full.obsm["protein_expression"].to_numpy())[cells]

    test = np.random.default_rng(0).permutation(CELLS)[:TEST_CELLS]
    sites, draw = np.zeros(CELLS, np.int64), np.random.default_rng(1)
    for cluster in range(CLUSTERS):
        share = draw.dirichlet([0.3] * SITES)
        members = np.flatnonzero(clusters == cluster)
        sites[members] = draw.choice(SITES, len(members), p=share)
    obs = pd.DataFrame(
        {
            "n_counts_all": totals[cells].astype(np.float32),
            "protein_cluster": pd.Categorical([f"k{c}" for c in clusters]),
            "split": pd.Categorical(np.where(np.isin(np.arange(CELLS), test), "test", "train")),
            "site": pd.Categorical([f"s{s}" for s in sites]),
        },
        index=pd.Index([f"c{i:04d}" for i in range(CELLS)]),
    )
    proteins = full.obsm["protein_expression"].iloc[cells].set_axis(obs.index).astype(np.int32)
    made = anndata.AnnData(
        counts[cells][:, genes].astype(np.uint16), obs, pd.DataFrame(index=full.var_names[genes]),
        obsm={"protein_expression": proteins},
    )  # fmt: skip
    made.uns["source"] = (
        "10x Genomics, 10k PBMCs, TotalSeq-B, v3 chemistry (pbmc_10k_protein_v3), CC BY 4.0; "
        "2,000 of 6,855 cells x 1,000 genes; sites are artificial"
    )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sample", choices=["diabetes130", "pbmc10k"])
    parser.add_argument("--source", type=Path, required=True, help="the publisher's file")
    parser.add_argument("--out", type=Path, required=True, help="folder for the file that is made")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    if options.sample == "diabetes130":
        table = diabetes130(options.source)
        path = options.out / "diabetes130.parquet"
        table.to_parquet(path, compression="zstd", compression_level=19, index=False)
        pd.testing.assert_frame_equal(table, pd.read_parquet(SAMPLES / path.name))
    else:
        import anndata  # pyright: ignore[reportMissingImports]

        cells: Any = pbmc10k(options.source)
        path = options.out / "pbmc10k_cite_2000.h5ad"
        cells.write_h5ad(path, compression="gzip", compression_opts=9)
        shipped: Any = anndata.read_h5ad(SAMPLES / path.name)
        assert abs(cells.X.astype(int) - shipped.X.astype(int)).sum() == 0
        assert list(cells.var_names) == list(shipped.var_names)
        pd.testing.assert_frame_equal(cells.obs, shipped.obs)
        pd.testing.assert_frame_equal(cells.obsm["protein_expression"], shipped.obsm["protein_expression"])
    print(f"{path}: the same content as the file that is shipped")


if __name__ == "__main__":
    main()
