"""Made-up CITE-seq of many sites, for tests, benchmarks of size and examples. Everything here is synthetic.

One latent `z` of each cell, drawn around the centre of its cell type, drives genes and proteins alike:

    type        t ~ shares of its site, themselves ~ Dirichlet(alpha)
    latent      z ~ Normal(centre of t, 0.5^2), LATENT numbers
    genes       x_g ~ NB(mean = l * softmax(base + W z)_g, size = theta_g)       variance mean + mean^2 / theta_g
                l ~ log-normal around the site's depth, sigma 0.35
    proteins    foreground f_p ~ Bernoulli(sigmoid(a_p + V_p . z))
                y_p ~ NB(mean = offset_sp b_p                       if f_p = 0, background
                         mean = offset_sp b_p + gain_sp s_p e^(u_p . z)  if f_p = 1, size = phi_p)
                both means times a factor of the cell, log-normal, sigma 0.2

A failed antibody has no foreground at its site. A protein out of a site's panel has no column there. What the genes
and proteins are like is drawn once for a study; everything of a site comes from streams of its own (Philox, keyed by
seed, site and block of BLOCK cells), so that a site is the same whatever other sites there are, its first cells are the
same however many follow, and a million cells are made site by site, or block by block, in little memory.

The model is that of totalVI, turned round to draw from: Gayoso et al., Joint probabilistic modeling of single-cell
multi-omic data with totalVI, Nature Methods 18 (2021), equations 1 to 8.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from learner_jax.data.cells import Cells
from learner_jax.data.cells import to_anndata as as_anndata
from learner_jax.errors import DataError

if TYPE_CHECKING:
    from anndata import AnnData

BLOCK, LATENT = 1024, 8
SYNTHETIC = "synthetic: simulated cells, no measurement of anybody"


@dataclasses.dataclass(frozen=True)
class Truth:
    """What was drawn, which no laboratory could know.

    Attributes:
      latent: float32[n, LATENT].
      library: float32[n], expected RNA counts of the cell. Gene g's mean is library * softmax(base + latent @ loading).
      foreground: bool[n, P]: the antibody found its protein on the cell. Of the site's panel, as `protein` is.
      expected: float32[n, P]: mean count given the latent and the cell's own factor, over both components.
      shares: float64[types], of the cell types at the site.
      depth: median RNA counts of a cell at the site.
      gain: float64[P], of the foreground; offset: float64[P], of the background.
      failed: proteins of the panel whose antibody failed here.
      base: float64[genes]; loading: float64[LATENT, genes]; dispersion: float64[genes], theta of each gene's counts:
        the same at all sites.
    """

    latent: np.ndarray
    library: np.ndarray
    foreground: np.ndarray
    expected: np.ndarray
    shares: np.ndarray
    depth: float
    gain: np.ndarray
    offset: np.ndarray
    failed: tuple[str, ...]
    base: np.ndarray
    loading: np.ndarray
    dispersion: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class SimulatedCells(Cells):
    """One site's simulated cells: `Cells` of the site's panel, whose notes say that they are synthetic.

    Genes have no Ensembl ids. `obs` has the index "s00-0000000" and columns cell_type, site, split ("train", one in
    five "test") and synthetic (True).

    Attributes:
      truth: what was drawn.
    """

    truth: Truth = dataclasses.field(kw_only=True)

    def take(self, which: Any) -> SimulatedCells:
        """The cells at these places, in that order, or those where a mask is true, with what was drawn of them.

        Args:
          which: int[k] or bool[n].
        """
        truth = dataclasses.replace(self.truth, **{name: getattr(self.truth, name)[which] for name in _EACH})
        return dataclasses.replace(super().take(which), truth=truth)  # pyright: ignore[reportReturnType]


_EACH = ("latent", "library", "foreground", "expected")
"""What is drawn for each cell."""


def simulated_cells(
    sites: int = 4, cells: int | Sequence[int] = 2000, genes: int = 1000, proteins: int = 14, seed: int = 0,
    *, types: int = 8, alpha: float = 0.3, depth: float | Sequence[float] = 2000.0, gain: float = 0.5,
    failed: float | Mapping[str, Sequence[str]] = 0.0, panel: int | Mapping[str, Sequence[str]] = 0,
    only: Sequence[str] | None = None,
) -> dict[str, SimulatedCells]:  # fmt: skip
    """Synthetic CITE-seq of several sites.

    Args:
      sites: how many; named s00, s01, ...
      cells: of each site, or one number a site.
      genes: how many; named SYNG00000, ...
      proteins: of the whole study; named SYNP00, ...
      seed: of everything.
      types: cell types.
      alpha: of the Dirichlet that a site's shares of types are drawn from: 0.1 is a strong skew, 100 almost none.
      depth: median RNA counts of a cell; one number: sites lie around it, log-normal, sigma 0.3; else one a site.
      gain: standard deviation over sites of the logarithm of an antibody's gain; of its background, half of that.
      failed: chance that an antibody failed at a site; or site -> names of those that did.
      panel: how many proteins each site lacks, drawn for each site; or site -> names of those that it measures, a site
        that is not named measuring all.
      only: make these sites alone; they are the same as among all.

    Returns:
      Site -> its cells.

    Raises:
      DataError: a number is out of its range; a name is of no site or protein of the study.
    """
    study = _study(sites, cells, genes, proteins, seed, types, alpha, depth, gain, failed, panel)
    wanted = study.sites if only is None else [study.sites[_place(study, name)] for name in only]
    return {name: _joined(list(_blocks(study, _place(study, name)))) for name in wanted}


def simulated_blocks(
    site: str, sites: int = 4, cells: int | Sequence[int] = 2000, genes: int = 1000, proteins: int = 14, seed: int = 0,
    *, types: int = 8, alpha: float = 0.3, depth: float | Sequence[float] = 2000.0, gain: float = 0.5,
    failed: float | Mapping[str, Sequence[str]] = 0.0, panel: int | Mapping[str, Sequence[str]] = 0,
) -> Iterator[SimulatedCells]:  # fmt: skip
    """One site's cells, one block of BLOCK after the other: the rows of `simulated_cells`, never held together.

    Args:
      site: its name.
      sites, cells, genes, proteins, seed, types, alpha, depth, gain, failed, panel: as `simulated_cells`.

    Raises:
      DataError: no site of that name; else as `simulated_cells`.
    """
    study = _study(sites, cells, genes, proteins, seed, types, alpha, depth, gain, failed, panel)
    return _blocks(study, _place(study, site))


def to_anndata(cells: Any) -> AnnData:
    """As `learner_jax.data.cells.to_anndata`; `uns["synthetic"]` says what they are, and what was drawn is in
    `obsm["simulated_latent"]`.
    """
    made = as_anndata(cells)
    if (truth := getattr(cells, "truth", None)) is not None:
        made.uns["synthetic"] = SYNTHETIC
        made.obsm["simulated_latent"] = truth.latent.copy()
    return made


# ---- what all sites have in common ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Study:
    seed: int
    sites: tuple[str, ...]
    cells: tuple[int, ...]
    genes: np.ndarray  # str [G]
    proteins: tuple[str, ...]
    types: int
    alpha: float
    depth: tuple[float, ...]
    gain: float
    failed: float | Mapping[str, Sequence[str]]
    panel: int | Mapping[str, Sequence[str]]
    centres: np.ndarray  # [types, LATENT]
    base: np.ndarray  # [G]
    loading: np.ndarray  # [LATENT, G]
    theta: np.ndarray  # [G]
    onset: np.ndarray  # [P], log-odds of foreground at z = 0
    turning: np.ndarray  # [LATENT, P]
    background: np.ndarray  # [P]
    signal: np.ndarray  # [P]
    rising: np.ndarray  # [LATENT, P]
    phi: np.ndarray  # [P]


def _study(
    sites: int, cells: int | Sequence[int], genes: int, proteins: int, seed: int, types: int, alpha: float,
    depth: float | Sequence[float], gain: float, failed: float | Mapping[str, Sequence[str]],
    panel: int | Mapping[str, Sequence[str]],
) -> _Study:  # fmt: skip
    for what, number in (("sites", sites), ("genes", genes), ("proteins", proteins), ("types", types)):
        if number < 1:
            raise DataError(f"expected at least 1 of {what}, got {what}={number}")
    names = tuple(f"s{at:02d}" for at in range(sites))
    panel_of = tuple(f"SYNP{at:02d}" for at in range(proteins))
    each = tuple(cells) if isinstance(cells, Sequence) else (cells,) * sites
    deep = tuple(depth) if isinstance(depth, Sequence) else tuple(
        depth * float(np.exp(0.3 * _stream(seed, "depth", name).standard_normal())) for name in names
    )  # fmt: skip
    for what, numbers in (("cells", each), ("depth", deep)):
        if len(numbers) != sites:
            raise DataError(f"expected {what} of {sites} sites, got {len(numbers)}")
    if min(each) < 0 or not alpha > 0 or not min(deep) > 0 or not gain >= 0:
        raise DataError(
            f"expected cells >= 0, alpha > 0, depth > 0, gain >= 0, got cells={min(each)}, alpha={alpha:g}, "
            f"depth={min(deep):g}, gain={gain:g}"
        )
    if isinstance(failed, Mapping):
        _named("failed", failed, names, panel_of)
    elif not 0 <= failed <= 1:
        raise DataError(f"expected a chance in [0, 1] that an antibody failed, got failed={failed:g}")
    if isinstance(panel, Mapping):
        _named("panel", panel, names, panel_of)
    elif not 0 <= panel < proteins:
        raise DataError(f"expected each site to lack from 0 to {proteins - 1} proteins, got panel={panel}")
    draw = _stream(seed, "genes")
    base = draw.normal(0.0, 2.0, genes)
    theta = draw.gamma(4.0, 0.5, genes) + 0.3
    # One gene in four goes with the latent, by one or two of its numbers; the others tell nothing.
    loading = draw.normal(0.0, 0.6, (LATENT, genes)) * (draw.random((LATENT, genes)) < 0.25)
    loading *= draw.random(genes) < 0.5
    centres = _stream(seed, "types").normal(0.0, 1.0, (types, LATENT))
    draw = _stream(seed, "proteins")
    return _Study(
        seed, names, each, np.array([f"SYNG{at:05d}" for at in range(genes)], object), panel_of, types, alpha, deep,
        gain, failed, panel, centres, base, loading, theta,
        onset=draw.normal(-0.5, 1.0, proteins),
        turning=draw.normal(0.0, 2.5, (LATENT, proteins)),
        background=np.exp(draw.normal(2.7, 0.6, proteins)),
        signal=np.exp(draw.normal(6.0, 0.7, proteins)),
        rising=draw.normal(0.0, 0.15, (LATENT, proteins)),
        phi=draw.uniform(3.0, 10.0, proteins),
    )  # fmt: skip


def _place(study: _Study, site: str) -> int:
    if site not in study.sites:
        raise DataError(f"expected a site among {study.sites[0]} to {study.sites[-1]}, got '{site}'")
    return study.sites.index(site)


def _named(what: str, given: Mapping[str, Sequence[str]], sites: Sequence[str], proteins: Sequence[str]) -> None:
    for site, names in given.items():
        if site not in sites:
            raise DataError(f"expected {what} of a site among {sites[0]} to {sites[-1]}, got '{site}'")
        for name in names:
            if name not in proteins:
                raise DataError(f"expected {what} of site {site} among {proteins[0]} to {proteins[-1]}, got '{name}'")


def _stream(seed: int, *names: str) -> np.random.Generator:
    """A Philox stream of its own for each purpose, the same on every machine."""
    digest = hashlib.sha256("\0".join(["cells", str(int(seed)), *names]).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


# ---- one site -------------------------------------------------------------------------------------------------------


def _blocks(study: _Study, at: int) -> Iterator[SimulatedCells]:
    """Blocks of one site; a site without cells is one empty block."""
    name, total = study.sites[at], study.cells[at]
    draw = _stream(study.seed, "site", name)
    count = len(study.proteins)
    shares = draw.dirichlet(np.full(study.types, study.alpha))
    gain = np.exp(study.gain * draw.standard_normal(count))
    offset = np.exp(0.5 * study.gain * draw.standard_normal(count))
    chance, order = draw.random(count), draw.permutation(count)
    if isinstance(study.failed, Mapping):
        broken = np.isin(study.proteins, list(study.failed.get(name, ())))
    else:
        broken = chance < study.failed
    if isinstance(study.panel, Mapping):
        kept = np.isin(study.proteins, list(study.panel.get(name, study.proteins)))
    else:
        kept = ~np.isin(np.arange(count), order[: study.panel])
    site = _Site(name, shares, study.depth[at], gain, offset, broken, kept)
    for start in range(0, max(total, 1), BLOCK):
        yield _block(study, site, start, min(total, start + BLOCK))


@dataclasses.dataclass(frozen=True)
class _Site:
    name: str
    shares: np.ndarray
    depth: float
    gain: np.ndarray
    offset: np.ndarray
    broken: np.ndarray
    kept: np.ndarray


def _block(study: _Study, site: _Site, start: int, end: int) -> SimulatedCells:
    """Rows start to end of a site. A whole block is drawn, then cut: its first rows never depend on the last."""
    import pandas as pd
    from scipy.sparse import csr_matrix

    draw = _stream(study.seed, "site", site.name, str(start // BLOCK))
    of = np.searchsorted(np.cumsum(site.shares)[:-1], draw.random(BLOCK), side="right")
    latent = study.centres[of] + 0.5 * draw.standard_normal((BLOCK, LATENT))
    tested = draw.random(BLOCK) < 0.2
    library = site.depth * np.exp(0.35 * draw.standard_normal(BLOCK))

    odds = study.onset + latent @ study.turning
    chance = np.where(site.broken, 0.0, 1 / (1 + np.exp(-odds)))
    foreground = draw.random(chance.shape) < chance
    stain = np.exp(0.2 * draw.standard_normal((BLOCK, 1)))
    low = stain * site.offset * study.background
    high = stain * site.gain * study.signal * np.exp(latent @ study.rising)
    mean = low + foreground * high
    protein = draw.poisson(mean * draw.standard_gamma(np.broadcast_to(study.phi, mean.shape)) / study.phi)

    size = end - start
    rate = (study.base + latent @ study.loading).astype(np.float32)[:size]
    np.exp(rate - rate.max(1, keepdims=True), out=rate)
    theta = study.theta.astype(np.float32)
    rate *= (library[:size] / rate.sum(1)).astype(np.float32)[:, None] / theta
    shape, count = (_stream(study.seed, what, site.name, str(start // BLOCK)) for what in ("shape", "count"))
    rate *= shape.standard_gamma(np.broadcast_to(theta, rate.shape), dtype=np.float32)
    counts = csr_matrix(count.poisson(rate).astype(np.int32))
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(
                [f"type {one}" for one in of[:size]], [f"type {t}" for t in range(study.types)]
            ),
            "site": site.name,
            "split": np.where(tested[:size], "test", "train"),
            "synthetic": True,
        },
        index=pd.Index([f"{site.name}-{row:07d}" for row in range(start, end)]),
    )
    kept = site.kept
    names = tuple(name for name, keep in zip(study.proteins, kept) if keep)
    return SimulatedCells(
        counts,
        study.genes,
        None,
        protein[:size, kept].astype(np.float32),
        names,
        obs,
        (SYNTHETIC,),
        truth=Truth(
            latent[:size].astype(np.float32),
            library[:size].astype(np.float32),
            foreground[:size, kept],
            (low + chance * high)[:size, kept].astype(np.float32),
            site.shares,
            site.depth,
            site.gain[kept],
            site.offset[kept],
            tuple(name for name, keep, broken in zip(study.proteins, kept, site.broken) if keep and broken),
            study.base,
            study.loading,
            study.theta,
        ),
    )


def _joined(blocks: list[SimulatedCells]) -> SimulatedCells:
    import pandas as pd
    from scipy import sparse

    together = {name: np.concatenate([getattr(block.truth, name) for block in blocks]) for name in _EACH}
    return dataclasses.replace(
        blocks[0],
        counts=sparse.vstack([block.counts for block in blocks], format="csr"),
        protein=np.concatenate([block.protein for block in blocks]),
        obs=pd.concat([block.obs for block in blocks]),
        truth=dataclasses.replace(blocks[0].truth, **together),
    )
