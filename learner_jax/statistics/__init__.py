"""Statistics that all sites agree on without seeing each other's rows: each site measures sums, the total is fitted.

NumPy only; those for cells, in `genes`, `variable_genes`, `reduction` and `proteins`, with SciPy. Sums are int64 or
float64 arrays in a dict; `combine` adds them in the order of site ids. What comes out equals the pooled statistic
exactly for counts, and to rounding for means and deviations.
"""

from learner_jax.statistics.combine import combine
from learner_jax.statistics.counts import counts, kept
from learner_jax.statistics.histogram import histogram, quantile
from learner_jax.statistics.missing import missing, missing_rate
from learner_jax.statistics.moments import mean_and_deviation, moments
from learner_jax.statistics.plausible import impossible

__all__ = [
    "combine",
    "counts",
    "histogram",
    "impossible",
    "kept",
    "mean_and_deviation",
    "missing",
    "missing_rate",
    "moments",
    "quantile",
]
