"""Features of an inpatient encounter, from a table in the form of Diabetes 130-US Hospitals.

Only what is known at discharge enters, and of the patient's other encounters only *earlier* ones, by the column
`order`: shuffling or deleting later encounters moves no feature. That an earlier stay ended in a readmission within 30
days is known by then, since the readmission itself has happened.

Every value is a whole number, a flag, or a logarithm looked up in one table, so that a row's features are the same
bits alone or among a million others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from learner_jax.data import icd9
from learner_jax.data.once import once
from learner_jax.data.schema import Column, conform
from learner_jax.data.ways import UNKNOWN, Labels, Parting, label

if TYPE_CHECKING:
    import pandas as pd

LABEL = "readmitted"
DIED_OR_HOSPICE = (11, 13, 14, 19, 20, 21)
HEART_FAILURE = 428
DIAGNOSES = ("diag_1", "diag_2", "diag_3")

_AGES = tuple(f"[{low}-{low + 10})" for low in range(0, 100, 10))
_RACES = ("AfricanAmerican", "Asian", "Caucasian", "Hispanic", "Other")
_PAYERS = ("BC", "CH", "CM", "CP", "DM", "FR", "HM", "MC", "MD", "MP", "OG", "OT", "PO", "SI", "SP", "UN", "WC")
_DOSES = ("No", "Steady", "Up", "Down")
_DRUGS = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide",
    "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone", "tolazamide",
    "insulin", "glyburide-metformin", "glipizide-metformin", "glimepiride-pioglitazone", "metformin-rosiglitazone",
    "metformin-pioglitazone",
)  # fmt: skip

# What gets an input of its own: values that at least about 1 encounter in 100 has in the public table.
_SPECIALTIES = (
    "InternalMedicine", "Emergency/Trauma", "Family/GeneralPractice", "Cardiology", "Surgery-General", "Nephrology",
    "Orthopedics", "Orthopedics-Reconstructive", "Radiologist", "Pulmonology", "Psychiatry",
    "PhysicalMedicineandRehabilitation",
)  # fmt: skip
_PAYERS_SHOWN = ("MC", "HM", "SP", "BC", "MD", "CP", "UN", "CM", "OG")
_DRUGS_SHOWN = (
    "metformin", "repaglinide", "nateglinide", "glimepiride", "glipizide", "glyburide", "pioglitazone",
    "rosiglitazone", "acarbose", "glyburide-metformin", "insulin",
)  # fmt: skip
_DISPOSITIONS = (2, 3, 4, 5, 6, 7, 8, 15, 18, 22, 23, 24, 25, 28)
_DIABETES_DIGITS = "0123456789"


def _count(name: str, low: int, high: int, unit: str = "", about: str = "") -> Column:
    return Column(name=name, kind="number", unit=unit, low=low, high=high, whole=True, about=about)


COLUMNS: tuple[Column, ...] = (
    Column(
        name="patient", kind="id", missing="refuse", aliases=("patient_nbr",),
        about="who; never sent, never an input",
    ),
    Column(
        name="order", kind="number", missing="refuse", aliases=("encounter_id",),
        about="rises with time, within a patient",
    ),
    Column(
        name="split", kind="category", codes=("train", "test"), missing="refuse", required=False,
        about="who is held back",
    ),
    Column(
        name=LABEL, kind="category", codes=("<30", ">30", "NO"), missing="refuse",
        about="days to the next inpatient stay",
    ),
    Column(name="age", kind="category", codes=_AGES, about="in decades of years"),
    Column(name="gender", kind="category", codes=("Female", "Male", "Unknown/Invalid")),
    Column(name="race", kind="category", codes=_RACES),
    _count("admission_type_id", 1, 8, about="1 emergency, 2 urgent, 3 elective, ..."),
    _count("admission_source_id", 1, 26, about="1 referral, 7 emergency room, ..."),
    _count("discharge_disposition_id", 1, 30, about="1 home, 3 skilled nursing, 11 died, ..."),
    _count("time_in_hospital", 1, 14, "days"),
    _count("num_lab_procedures", 0, 200),
    _count("num_procedures", 0, 60),
    _count("num_medications", 0, 150),
    _count("number_outpatient", 0, 400, about="visits in the year before"),
    _count("number_emergency", 0, 400, about="visits in the year before"),
    _count("number_inpatient", 0, 100, about="stays in the year before"),
    _count("number_diagnoses", 1, 30),
    Column(name="payer_code", kind="category", codes=_PAYERS),
    Column(name="medical_specialty", kind="code", about="of the admitting physician"),
    *(Column(name=name, kind="code", about="ICD-9-CM; lost leading zeros are put back") for name in DIAGNOSES),
    Column(name="max_glu_serum", kind="category", codes=("None", "Norm", ">200", ">300"), unit="mg/dL"),
    Column(name="A1Cresult", kind="category", codes=("None", "Norm", ">7", ">8"), unit="%"),
    *(Column(name=name, kind="category", codes=_DOSES) for name in _DRUGS),
    Column(name="change", kind="category", codes=("No", "Ch"), about="of diabetes medication"),
    Column(name="diabetesMed", kind="category", codes=("No", "Yes")),
)  # fmt: skip
"""What the checklist asks for. (The shipped sample has one column more, `weight`, missing in 97 of 100 rows; the
publisher's file has two more, which never vary. Its `patient_nbr` and `encounter_id` are taken as `patient` and
`order`.)"""

IGNORED = ("weight", "examide", "citoglipton")


class Encounters(NamedTuple):
    """One site's encounters, one row each, in the order of the table.

    Attributes:
      inputs: float64[n, len(names)].
      names: of the inputs.
      categories: int64[n, 3], three-digit categories of the diagnoses (`learner_jax.data.icd9`), 0 where missing.
      patient: int64[n].
      early: bool[n], readmitted within 30 days; False where no label is known.
      alive: bool[n], not discharged to death or hospice.
      test: bool[n], or None where the table has no column `split`.
    """

    inputs: np.ndarray
    names: tuple[str, ...]
    categories: np.ndarray
    patient: np.ndarray
    early: np.ndarray
    alive: np.ndarray
    test: np.ndarray | None


@once
def describe(frame: pd.DataFrame) -> Encounters:
    """Features of every encounter of a table in canonical form (`schema.conform` with `COLUMNS`)."""
    rows = len(frame)
    categories = np.stack([_looked_up(frame[name], icd9.category, icd9.UNKNOWN) for name in DIAGNOSES], axis=1)
    groups = np.array(icd9.GROUP_OF)[categories]
    early = _is(frame, LABEL, "<30") if LABEL in frame else np.zeros(rows, bool)
    disposition = _whole(frame, "discharge_disposition_id")
    features: dict[str, np.ndarray] = {}
    _person(frame, features)
    _stay(frame, features, disposition)
    _medication(frame, features)
    any_group, first_group = _diagnoses(frame, features, categories, groups)
    patient = frame["patient"].to_numpy() if "patient" in frame else -1 - np.arange(rows)
    if "order" in frame:
        _history(frame, features, Earlier(patient, frame["order"].to_numpy()), early, categories, groups, any_group)
    else:
        _history(frame, features, Earlier(patient, np.zeros(rows)), early, categories, groups, any_group)
    return Encounters(
        inputs=_stacked(list(features.values())),
        names=tuple(features),
        categories=categories,
        patient=patient,
        early=early,
        alive=~np.isin(disposition, DIED_OR_HOSPICE),
        test=_is(frame, "split", "test") if "split" in frame else None,
    )


def _stacked(columns: list[np.ndarray]) -> np.ndarray:
    table = np.empty((len(columns[0]), len(columns)), np.float64)
    for place, column in enumerate(columns):
        table[:, place] = column
    return table


@functools.cache
def input_names() -> tuple[str, ...]:
    """Names of the inputs, the same for every table."""
    import pandas as pd

    words = {"number": 1.0, "id": 0, "flag": 0.0, "code": "250"}
    row = pd.DataFrame({c.name: [c.codes[0] if c.kind == "category" else words[c.kind]] for c in COLUMNS})
    return describe(conform(row, COLUMNS, "names")[0]).names


def ways(frame: pd.DataFrame) -> dict[str, Labels]:
    """Into which subgroups a canonical table's rows fall: by age, sex and race."""
    ages = ("under 60 years", "60 to under 70 years", "70 to under 80 years", "80 years or more", UNKNOWN)
    decade = frame["age"].cat.codes.to_numpy().astype(np.int64)
    of = np.where(decade < 0, 4, np.clip(decade - 5, 0, 3)).astype(np.int8)
    columns = {column.name: column for column in COLUMNS}
    found = {"age": Labels(ages, of)}
    sexes = label(frame["gender"], Parting(columns["gender"], ()))
    known = np.where(sexes.of < 2, sexes.of, 2).astype(np.int8)
    found["sex"] = Labels(("women", "men", UNKNOWN), known)
    found["race"] = label(frame["race"], Parting(columns["race"], ()))
    return found


# ---- The encounter itself --------------------------------------------------------------------------------------------


def _person(frame: pd.DataFrame, features: dict[str, np.ndarray]) -> None:
    decade = frame["age"].cat.codes.to_numpy().astype(np.int64)
    features["age"] = np.where(decade < 0, 6, decade)
    for number in range(2, 10):
        features[f"age {_AGES[number]}"] = decade == number
    features["female"] = _is(frame, "gender", "Female")
    for race in _RACES:
        features[f"race {race}"] = _is(frame, "race", race)
    payer_known = frame["payer_code"].cat.codes.to_numpy() >= 0
    features["payer unknown"] = ~payer_known
    for payer in _PAYERS_SHOWN:
        features[f"payer {payer}"] = _is(frame, "payer_code", payer)


def _stay(frame: pd.DataFrame, features: dict[str, np.ndarray], disposition: np.ndarray) -> None:
    days = _whole(frame, "time_in_hospital")
    features["log days"] = _log1p(days)
    _thresholds(features, "days", days, (2, 3, 5, 8))
    laboratory, procedures = _whole(frame, "num_lab_procedures"), _whole(frame, "num_procedures")
    features["laboratory tests"] = laboratory
    features["one laboratory test"] = laboratory == 1
    features["log procedures"] = _log1p(procedures)
    features["no procedure"] = procedures == 0
    medications, diagnoses = _whole(frame, "num_medications"), _whole(frame, "number_diagnoses")
    features["medications"], features["log medications"] = medications, _log1p(medications)
    features["number of diagnoses"] = diagnoses
    _thresholds(features, "diagnoses", diagnoses, (5, 9))

    visits = np.zeros(len(frame), np.int64)
    for name in ("number_inpatient", "number_emergency", "number_outpatient"):
        count = _whole(frame, name)
        visits += count
        features[f"log {name}"] = _log1p(count)
        _thresholds(features, name, count, (1, 2, 3, 5))
    features["log visits"] = _log1p(visits)

    kind, source = _whole(frame, "admission_type_id"), _whole(frame, "admission_source_id")
    for number in (1, 2, 3):
        features[f"admission type {number}"] = kind == number
    features["admission type unknown"] = np.isin(kind, (0, 5, 6, 8))
    for number in (1, 2, 4, 5, 6, 7, 20):
        features[f"admission source {number}"] = source == number
    features["admission source unknown"] = np.isin(source, (0, 9, 15, 17, 20, 21))
    for number in _DISPOSITIONS:
        features[f"discharge {number}"] = disposition == number
    specialty = frame["medical_specialty"]
    features["specialty unknown"] = specialty.cat.codes.to_numpy() < 0
    for name in _SPECIALTIES:
        features[f"specialty {name}"] = _is(frame, "medical_specialty", name)


def _medication(frame: pd.DataFrame, features: dict[str, np.ndarray]) -> None:
    for test in ("max_glu_serum", "A1Cresult"):
        for result in frame[test].cat.categories:
            features[f"{test} {result}"] = _is(frame, test, result)
    taken, moved = np.zeros(len(frame), np.int64), np.zeros(len(frame), bool)
    for drug in _DRUGS:
        up, down = _is(frame, drug, "Up"), _is(frame, drug, "Down")
        taking = up | down | _is(frame, drug, "Steady")
        taken += taking
        moved |= up | down
        if drug in _DRUGS_SHOWN:
            features[drug] = taking
        if drug in ("metformin", "glipizide", "glyburide", "insulin"):
            features[f"{drug} up"], features[f"{drug} down"] = up, down
    features["diabetes drugs"], features["a dose changed"] = taken, moved
    features["medication changed"] = _is(frame, "change", "Ch")
    features["on diabetes medication"] = _is(frame, "diabetesMed", "Yes")


def _diagnoses(
    frame: pd.DataFrame, features: dict[str, np.ndarray], categories: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Flags of groups in any position and in the first; returns them, bool[n, groups] each."""
    rows, number = len(frame), len(icd9.GROUP_NAMES)
    any_group, first_group = np.zeros((rows, number), bool), np.zeros((rows, number), bool)
    for position in range(groups.shape[1]):
        known = groups[:, position] >= 0
        any_group[np.flatnonzero(known), groups[known, position]] = True
        if position == 0:
            first_group |= any_group
    for place, name in enumerate(icd9.GROUP_NAMES):
        features[name] = any_group[:, place]
        features[f"{name}, first"] = first_group[:, place]
    digits = np.stack([_looked_up(frame[name], _diabetes_digit, -1) for name in DIAGNOSES], axis=1)
    for digit in _DIABETES_DIGITS:
        features[f"diabetes 250.{digit}"] = (digits == int(digit)).any(axis=1)
    features["no second diagnosis"] = categories[:, 1] == icd9.UNKNOWN
    features["no third diagnosis"] = categories[:, 2] == icd9.UNKNOWN
    return any_group, first_group


def _diabetes_digit(code: str) -> int:
    """The first digit after 250, which says what the diabetes has led to; -1 for other codes."""
    return int(icd9.detail(code)[:1] or -1) if icd9.category(code) == 250 else -1


# ---- The patient's earlier encounters --------------------------------------------------------------------------------


class Earlier:
    """Sums over, and the last of, a patient's earlier rows.

    Args:
      patient: int64[n].
      order: float64[n], rises with time within a patient.
    """

    def __init__(self, patient: np.ndarray, order: np.ndarray):
        self._sorted = np.lexsort((order, patient))
        ordered = patient[self._sorted]
        self._first = np.ones(len(patient), bool)
        self._first[1:] = ordered[1:] != ordered[:-1]
        self._start = np.maximum.accumulate(np.where(self._first, np.arange(len(patient)), 0))

    def total(self, values: np.ndarray) -> np.ndarray:
        """Sum over earlier rows, int64[n, ...] of int or bool [n, ...]."""
        ordered = np.asarray(values)[self._sorted].astype(np.int64)
        before = np.cumsum(ordered, axis=0) - ordered
        return self._back(before - before[self._start])

    def last(self, values: np.ndarray, otherwise: int | bool) -> np.ndarray:
        """Value of the row just before, `otherwise` where there is none."""
        ordered = np.asarray(values)[self._sorted]
        before = np.concatenate([ordered[:1], ordered[:-1]])
        before[self._first] = otherwise
        return self._back(before)

    def _back(self, ordered: np.ndarray) -> np.ndarray:
        values = np.empty_like(ordered)
        values[self._sorted] = ordered
        return values


def _history(
    frame: pd.DataFrame,
    features: dict[str, np.ndarray],
    earlier: Earlier,
    early: np.ndarray,
    categories: np.ndarray,
    groups: np.ndarray,
    any_group: np.ndarray,
) -> None:
    stays = earlier.total(np.ones(len(frame), bool))
    features["log earlier stays"] = _log1p(stays)
    _thresholds(features, "earlier stays", stays, (1, 2, 3, 5))
    late = _is(frame, LABEL, ">30") if LABEL in frame else np.zeros(len(frame), bool)
    returns = earlier.total(early)
    features["log earlier returns"] = _log1p(returns)
    _thresholds(features, "earlier returns", returns, (1, 2))
    features["share of earlier returns"] = (returns + 0.1) / (stays + 1.0)
    features["last stay: back within 30 days"] = earlier.last(early, False)
    features["last stay: back later"] = earlier.last(late, False)

    days, medications = _whole(frame, "time_in_hospital"), _whole(frame, "num_medications")
    spent = earlier.total(days)
    features["last stay: log days"] = _log1p(earlier.last(days, 0))
    features["log days of earlier stays"] = _log1p(spent)
    features["mean days of earlier stays"] = spent / np.maximum(stays, 1)
    features["last stay: log medications"] = _log1p(earlier.last(medications, 0))
    inpatient = _whole(frame, "number_inpatient")
    before = earlier.last(inpatient, 0)
    features["last stay: log number_inpatient"] = _log1p(before)
    step = np.where(stays > 0, inpatient - before, 0)
    features["change of number_inpatient"] = np.sign(step) * _log1p(np.abs(step))
    disposition = _whole(frame, "discharge_disposition_id")
    last_disposition = earlier.last(disposition, 0)
    for number in (1, 3, 6, 22):
        features[f"last stay: discharge {number}"] = last_disposition == number
    features["earlier left against advice"] = earlier.total(disposition == 7) > 0
    features["earlier skilled nursing"] = earlier.total(disposition == 3) > 0
    features["log earlier emergencies"] = _log1p(earlier.total(_whole(frame, "admission_type_id") == 1))
    features["last stay: same first group"] = earlier.last(groups[:, 0], -2) == groups[:, 0]
    features["last stay: same first diagnosis"] = earlier.last(categories[:, 0], -2) == categories[:, 0]
    seen = earlier.total(any_group) > 0
    for place, name in enumerate(icd9.GROUP_NAMES):
        features[f"earlier {name}"] = seen[:, place]


# ---- Reading columns -------------------------------------------------------------------------------------------------

_LOGARITHMS = np.log1p(np.arange(4096, dtype=np.float64))


def _log1p(counts: np.ndarray) -> np.ndarray:
    """log(1 + count), looked up: vector instructions may round the rows of a short table differently."""
    return _LOGARITHMS[np.minimum(counts, len(_LOGARITHMS) - 1)]


def _thresholds(features: dict[str, np.ndarray], name: str, counts: np.ndarray, levels: tuple[int, ...]) -> None:
    for level in levels:
        features[f"{name} >= {level}"] = counts >= level


def _whole(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A count column as int64, 0 where missing."""
    values = frame[name].to_numpy()
    return np.where(np.isnan(values), 0.0, values).astype(np.int64)


def _is(frame: pd.DataFrame, name: str, word: str) -> np.ndarray:
    """bool[n]: the category equals the word."""
    words = frame[name].cat.categories
    if word not in words:
        return np.zeros(len(frame), bool)
    return frame[name].cat.codes.to_numpy() == words.get_loc(word)


def _looked_up(column: Any, function: Callable[[str], Any], otherwise: Any) -> np.ndarray:
    """function(word) for each row, each distinct word once; `otherwise` where missing."""
    table = np.array([*(function(word) for word in column.cat.categories), otherwise])
    return table[column.cat.codes.to_numpy()]
