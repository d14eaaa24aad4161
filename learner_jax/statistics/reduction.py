"""A linear reduction of genes that all sites share, from sums: by the Gram matrix, or by a sketch of it.

With A the matrix of all cells, A_ig = (x_ig - centre_g) / scale_g of log-normalised values x, both ways find the
leading eigenvectors V [G, k] of A^T A, which adds over sites. What centre and scale are decides what it is:

    gene means, gene deviations     PCA of standardised genes
    gene means, ones                PCA
    zeros, ones                     truncated singular value decomposition, as of scikit-learn

Gram matrix: one round; each site sends the upper triangle of its A^T A, G (G + 1) / 2 numbers: 16 MB for 2,000 genes,
64 MB for 4,000. Equal to the pooled decomposition to rounding.

Sketch: each round broadcasts an orthonormal basis Q [G, w], w = k + 10 or so, and sums A^T (A Q): 1 MB each way for
2,000 genes and w = 60. The first Q is random. `orthonormal(product)` as the next Q is subspace iteration (Halko,
Martinsson and Tropp, SIAM Review 2011, Algorithm 4.4). `orthonormal(product, against=all earlier Q)` keeps what
earlier rounds found: block Krylov (Musco and Musco, NeurIPS 2015, Algorithm 2), the same traffic. The Rayleigh-Ritz
step is taken at the coordinator from what it has. `sketch` does all rounds. On 6,855 real cells, 2,000 standardised
genes, k = 50, w = 60, the share of the k directions' variance that is lost, and the largest angle (radians) between
the first ten directions and the true ones:

    rounds              4                  8                  12                 16
    subspace iteration  3e-2, 8e-2         7e-3, 8e-4         3e-3, 9e-6         1e-3, 1e-7
    block Krylov        9e-3, 1e-2         6e-5, 6e-7         4e-8, 2e-11        4e-12, 1e-14

The last directions lie among many of almost the same variance and turn most: those of block Krylov after 12 rounds are
3e-3 away. By traffic the Gram matrix is the better up to about 3,000 genes; the sketch is for more (it is linear in G,
and for 30,000 genes the Gram matrix would be 3.6 GB).

Sign. An eigenvector's sign is free: here its entry of the largest size is positive, the first of them if several are.

What is revealed. The Gram matrix is all covariances of genes over a site's cells: of one cell it is the cell, and of
n < G cells it is their matrix but for a rotation of the cells (an n x n orthogonal matrix), which the knowledge that
counts are integers may undo. A sketch is G x w numbers a round computed from that matrix, so it never says more; after
rounds whose w add up to n or more the span of the site's cells is known. Neither is private in a formal sense. A site
below `FEWEST_CELLS` is refused; a site for which this says too much should join with the Gram matrix under secure sums,
or not take part in this step: V may be found without it, and used by it.

Float sums: equal whatever the deal of cells, and whatever the library of linear algebra, to rounding only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from learner_jax.errors import DataError
from learner_jax.statistics.genes import shape

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

FEWEST_CELLS = 100
_BLOCK = 2**21  # entries of a dense block: 16 MB in float64
_CELLS = 4096  # at most in a block

Sums = dict[str, np.ndarray]


class Reduction(NamedTuple):
    """Leading directions of the genes.

    Attributes:
      components: float64[G, k], orthonormal columns, the one of most variance first, sign as above.
      variance: float64[k] of the cells along each: eigenvalue of A^T A over the number of cells.
    """

    components: np.ndarray
    variance: np.ndarray


def gram(
    values: csr_matrix,
    centre: np.ndarray,
    scale: np.ndarray,
    fewest: int = FEWEST_CELLS,
    where: str = "the site",
) -> Sums:
    """Upper triangle of one site's A^T A, in dense blocks of cells.

    Args:
      values: float CSR [n, G], log-normalised.
      centre: float64[G], the same at every site.
      scale: float64[G], the same at every site, above 0.
      fewest: a site of fewer cells is refused.
      where: what to call the site in an error.

    Returns:
      {"rows": int64, "sum": float64[G] column sums of A, "gram": float64[G (G + 1) / 2], row after row}.

    Raises:
      DataError: too few cells, or centre and scale that do not fit.
    """
    centre, scale = _agreed(values, centre, scale, fewest, where)
    genes = len(centre)
    sums, full = np.zeros(genes), np.zeros((genes, genes))
    for block in _blocks(values):
        dense = (np.asarray(block.todense(), np.float64) - centre) / scale
        sums += dense.sum(axis=0)
        full += dense.T @ dense
    packed = np.concatenate([full[row, row:] for row in range(genes)]) if genes else np.zeros(0)
    return {"rows": np.asarray(shape(values)[0], np.int64), "sum": sums, "gram": packed}


def principal(total: Sums, k: int, centred: bool = False) -> Reduction:
    """The k leading directions from the total of `gram`.

    Args:
      total: over all sites.
      k: how many, from 1 to G.
      centred: take the cells' mean off, where `centre` was not that mean.

    Raises:
      DataError: no cells, or k out of range.
    """
    from scipy.linalg import eigh

    rows, genes = _rows(total), len(total["sum"])
    if not 1 <= k <= genes:
        raise DataError(f"expected 1 to {genes} components, one a gene at most, got k={k}")
    upper = np.zeros((genes, genes))
    begin = 0
    for row in range(genes):
        upper[row, row:] = total["gram"][begin : begin + genes - row]
        begin += genes - row
    if centred:
        upper -= np.triu(np.outer(total["sum"], total["sum"]) / rows)
    values, vectors = eigh(upper, lower=False, subset_by_index=[genes - k, genes - 1], overwrite_a=True)
    return Reduction(signed(vectors[:, ::-1]), np.maximum(values[::-1], 0.0) / rows)


def start(genes: int, width: int, seed: int) -> np.ndarray:
    """The first basis of a sketch: float64[G, width], orthonormal, uniform among all such, the same for a seed."""
    if not 1 <= width <= genes:
        raise DataError(f"expected a sketch of 1 to {genes} columns, one a gene at most, got {width}")
    return orthonormal(np.random.Generator(np.random.Philox(seed)).standard_normal((genes, width)))


def power(
    values: csr_matrix,
    basis: np.ndarray,
    centre: np.ndarray,
    scale: np.ndarray,
    fewest: int = FEWEST_CELLS,
    where: str = "the site",
) -> Sums:
    """One site's A^T (A Q). Values stay sparse: the centre enters as a rank-one term, and dense are n x w numbers.

    Args:
      values: float CSR [n, G], log-normalised.
      basis: Q, float64[G, w], as the coordinator sent it.
      centre: float64[G], the same at every site.
      scale: float64[G], the same at every site, above 0.
      fewest: a site of fewer cells is refused.
      where: what to call the site in an error.

    Returns:
      {"rows": int64, "product": float64[G, w]}.

    Raises:
      DataError: too few cells, or a basis, centre or scale that do not fit.
    """
    centre, scale = _agreed(values, centre, scale, fewest, where)
    if basis.ndim != 2 or len(basis) != len(centre):
        raise DataError(f"expected a basis for {len(centre)} genes, got {list(basis.shape)}")
    scaled = basis / scale[:, None]
    offset = centre @ scaled
    product = np.zeros(basis.shape)
    for block in _blocks(values, max(1, basis.shape[1])):
        seen = block @ scaled - offset
        product += block.T @ seen - np.outer(centre, seen.sum(axis=0))
    return {"rows": np.asarray(shape(values)[0], np.int64), "product": product / scale[:, None]}


def orthonormal(product: np.ndarray, against: np.ndarray | None = None) -> np.ndarray:
    """An orthonormal basis of the columns, float64[G, w].

    Args:
      product: float64[G, w].
      against: float64[G, b] orthonormal, b + w <= G: the basis is made orthogonal to it as well.
    """
    basis = np.asarray(product, np.float64)
    for _ in range(3):  # once loses digits where little is left, and columns of rounding alone need a third time
        if against is not None:
            basis = basis - against @ (against.T @ basis)
        basis = np.linalg.qr(basis)[0]
    return basis


def ritz(basis: np.ndarray, product: np.ndarray, k: int, rows: int) -> Reduction:
    """The k leading directions within a basis Q: eigenvectors of Q^T A^T A Q (Rayleigh-Ritz).

    Args:
      basis: float64[G, b], orthonormal: one round's Q, or those of all rounds side by side.
      product: float64[G, b], A^T A Q summed over sites, the same columns.
      k: how many, at most b.
      rows: cells over all sites.

    Raises:
      DataError: k out of range, or no cells.
    """
    if not 1 <= k <= basis.shape[1]:
        raise DataError(f"expected 1 to {basis.shape[1]} components of this sketch, got k={k}")
    small = basis.T @ product
    values, vectors = np.linalg.eigh((small + small.T) / 2)
    return Reduction(
        signed(basis @ vectors[:, ::-1][:, :k]), np.maximum(values[::-1][:k], 0.0) / _rows({"rows": np.asarray(rows)})
    )


def sketch(
    measure: Callable[[np.ndarray], Sums],
    genes: int,
    k: int,
    rounds: int = 12,
    oversample: int = 10,
    seed: int = 0,
    krylov: bool = True,
) -> Reduction:
    """All rounds of a sketch.

    Args:
      measure: from a basis to the total of `power` over all sites.
      genes: G.
      k: how many directions.
      rounds: of sums, the first about a random basis.
      oversample: columns beyond k.
      seed: of the random basis.
      krylov: keep what earlier rounds found; else subspace iteration.

    Raises:
      DataError: k or rounds out of range.
    """
    if rounds < 1:
        raise DataError(f"expected at least 1 round, got rounds={rounds}")
    basis = start(genes, min(genes, k + oversample), seed)
    bases, products, rows = np.zeros((genes, 0)), np.zeros((genes, 0)), 0
    for _ in range(rounds):
        total = measure(basis)
        rows, product = int(total["rows"]), total["product"]
        if not krylov:
            bases, products, basis = basis, product, orthonormal(product)
            continue
        bases, products = np.hstack([bases, basis]), np.hstack([products, product])
        left = genes - bases.shape[1]
        if not left:
            break
        basis = orthonormal(product, against=bases)[:, :left]
    return ritz(bases, products, k, rows)


def scores(values: csr_matrix, centre: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """(x - centre) @ loadings, float64[n, k], with loadings = components / scale[:, None]; values stay sparse.

    For z-scores: `moments` and `mean_and_deviation` of these over the sites.
    """
    return np.asarray(values @ loadings) - centre @ loadings


def signed(vectors: np.ndarray) -> np.ndarray:
    """Columns turned so that the entry of the largest size is positive, the first of them if several are."""
    places = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[places, np.arange(vectors.shape[1])])
    return vectors * np.where(signs == 0, 1.0, signs)


def _agreed(
    values: csr_matrix, centre: np.ndarray, scale: np.ndarray, fewest: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    rows, genes = shape(values)
    if rows < fewest:
        raise DataError(
            f"expected at least {fewest} cells at {where} for a shared reduction, got {rows}: with few cells, "
            "the cells could be found again from what is sent"
        )
    centre, scale = np.asarray(centre, np.float64), np.asarray(scale, np.float64)
    if centre.shape != (genes,) or scale.shape != (genes,):
        raise DataError(
            f"expected centre and scale for {genes} genes, got {list(centre.shape)} and {list(scale.shape)}"
        )
    if not (scale > 0).all():
        raise DataError(f"expected every scale above 0, got {scale.min()} for gene number {int(scale.argmin()) + 1}")
    return centre, scale


def _rows(total: Sums) -> int:
    rows = int(total["rows"])
    if rows < 1:
        raise DataError("expected at least 1 cell over all sites, got none")
    return rows


def _blocks(values: csr_matrix, width: int | None = None) -> Iterator[csr_matrix]:
    """Cells in order, so many at a time that a dense block of `width` columns (genes when None) stays small."""
    step = max(1, min(_CELLS, _BLOCK // max(1, width or shape(values)[1])))
    for begin in range(0, shape(values)[0], step):
        yield values[begin : begin + step]
