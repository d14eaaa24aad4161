"""Tables to arrays: declared columns, the check of a site's table, partitions, samples, public sets, batch plans."""

from __future__ import annotations

from learner_jax.data.schema import Checklist, Column
from learner_jax.data.sites import SiteData, encode_sites

__all__ = ["Checklist", "Column", "SiteData", "encode_sites"]
