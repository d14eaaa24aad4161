"""A site's figures as they came over the wire: read, and checked before anything is made of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from learner_jax.errors import RemoteProtocolError
from learner_jax.evaluation.summary import check_summary

Figures = Callable[[Any, str], dict[str, Any]]
"""(what came, the site's name) -> the same, checked; raises ValueError."""


def check_figures(found: Any, peer: str, release: bool = False) -> dict[str, Any]:
    """A site's figures of ranking by cohort, as `summarise_site` makes them.

    Raises:
      ValueError: they are not.
    """
    found = check_summary(found, release)
    if any(figures["name"] != peer for figures in found.values()):
        raise RemoteProtocolError(peer, "expected figures of its own name, got another's")
    return found


def read_summary(leaf: np.ndarray, peer: str, check: Figures = check_figures) -> dict[str, Any]:
    """A site's figures.

    Args:
      leaf: uint8, JSON.
      peer: the site's name.
      check: see `Rounds.figures`.

    Raises:
      RemoteProtocolError: not the JSON that a site's figures are.
    """
    try:
        found = json.loads(leaf.tobytes().rstrip().decode())
        # What cannot be joined would end the study, and again after each restart.
        found = {} if found == {} else check(found, peer)
    except RemoteProtocolError:
        raise
    except Exception:  # whatever is nested in it, or missing
        raise RemoteProtocolError(peer, "expected a site's figures as JSON, got something else") from None
    return found
