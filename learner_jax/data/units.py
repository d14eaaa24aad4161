"""Laboratory units made the same: what a hospital writes, read as UCUM and converted by pint.

Hospitals write units as they please ("mg/dl", "mmHg", "K/uL", "°F"); a short list says what is meant, and the rest is
UCUM. Amounts of substance become masses by the molar mass, where there is one.

Reference: The Unified Code for Units of Measure, ucum.org; read by ucumvert.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from learner_jax.errors import DataError

MEANT = {
    "mmhg": "mm[Hg]", "mm hg": "mm[Hg]", "cmh2o": "cm[H2O]", "°f": "[degF]", "degf": "[degF]", "f": "[degF]",
    "deg f": "[degF]", "fahrenheit": "[degF]", "°c": "Cel", "degc": "Cel", "c": "Cel", "deg c": "Cel", "celsius": "Cel",
    "bpm": "/min", "beats/min": "/min", "insp/min": "/min", "breaths/min": "/min", "k/ul": "10*3/uL",
    "k/mcl": "10*3/uL", "x10e3/ul": "10*3/uL", "10e3/ul": "10*3/uL", "10^3/ul": "10*3/uL", "10*3/mm3": "10*3/uL",
    "thou/ul": "10*3/uL", "10^9/l": "10*9/L", "10e9/l": "10*9/L", "x10e9/l": "10*9/L", "g/l": "g/L", "g/dl": "g/dL",
    "gm/dl": "g/dL", "mg/dl": "mg/dL", "mg/l": "mg/L", "ug/l": "ug/L", "mcg/l": "ug/L", "µmol/l": "umol/L",
    "μmol/l": "umol/L", "umol/l": "umol/L", "mmol/l": "mmol/L", "meq/l": "meq/L", "pg/ml": "pg/mL", "ng/l": "ng/L",
    "ng/ml": "ng/mL", "lb": "[lb_av]", "lbs": "[lb_av]", "lb_av": "[lb_av]", "kgs": "kg", "kg": "kg", "percent": "%",
    "l/l": "L/L",
}  # fmt: skip
"""What is written, in small letters -> UCUM."""
UNKNOWN = ("", "unk", "none", "null", "n/a", "na", "-", "no matching concept")


class Line(NamedTuple):
    """value in the wanted unit = times * value as written + plus."""

    times: float
    plus: float


def line(said: str | None, wanted: str, molar: float | None = None) -> Line | None:
    """How values with a unit as a hospital writes it become values in the wanted one.

    Args:
      said: as written; None or a word such as "unk" where there is none: taken to be the wanted one.
      wanted: UCUM.
      molar: molar mass, g/mol, of what is measured.

    Returns:
      The line, or None where one cannot become the other (a count and a mass).

    Raises:
      DataError: ucumvert is not installed.
    """
    text = (said or "").strip()
    if text.lower() in UNKNOWN or text == wanted:
        return Line(1.0, 0.0)
    return _line(MEANT.get(text.lower(), text), wanted, molar)


@functools.cache
def _line(said: str, wanted: str, molar: float | None) -> Line | None:
    if said == wanted:
        return Line(1.0, 0.0)
    registry = _registry()
    try:
        have, want = registry.from_ucum(said).units, registry.from_ucum(wanted).units
        ends = []
        for value in (0.0, 1.0):
            quantity = registry.Quantity(value, have)
            if molar is not None and not quantity.check(registry.Quantity(1.0, want).dimensionality):
                quantity = quantity * registry.Quantity(molar, "gram / mole")
            ends.append(float(quantity.to(want).magnitude))
    except Exception:  # a parser's and pint's many kinds: what is written is no unit, or of another kind
        return None
    times = ends[1] - ends[0]
    return Line(times, ends[0]) if math.isfinite(times) and times else None


@functools.cache
def _registry() -> Any:
    try:
        from ucumvert import PintUcumRegistry
    except ImportError:
        raise DataError("expected ucumvert, which reads units: pip install 'learner-jax[ehr]'") from None
    return PintUcumRegistry()
