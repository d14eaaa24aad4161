"""Every wrong table gives one line with column, row, what was expected and what kind of thing came, and no value."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner_jax.data.schema import Column, conform, near
from learner_jax.errors import DataError

COLUMNS = (
    Column(name="patient", kind="id"),
    Column(name="creatinine", kind="number", unit="mg/dL", low=0, high=30),
    Column(name="age", kind="number", unit="years", low=0, high=120, whole=True, missing="refuse"),
    Column(name="sex", kind="category", codes=("F", "M")),
    Column(name="diagnosis", kind="code"),
    Column(name="smoker", kind="flag", codes=("No", "Yes"), required=False),
)


def table(**changes) -> pd.DataFrame:
    good = {
        "patient": ["1", "2", "A7"],
        "creatinine": ["0.9", "", "12"],
        "age": ["70", "71", "72"],
        "sex": ["F", "?", "M"],
        "diagnosis": ["428", "?", "V45"],
        "smoker": ["Yes", "No", "?"],
    }
    return pd.DataFrame({name: value for name, value in {**good, **changes}.items() if value is not None})


def test_text_becomes_one_canonical_form():
    got, warnings = conform(table(), COLUMNS, "site 'a'")
    assert warnings == []
    np.testing.assert_array_equal(got["creatinine"], [0.9, np.nan, 12.0])
    assert got["patient"].tolist()[:2] == [1, 2] and got["patient"].dtype == np.int64 and got["patient"][2] > 2**32
    assert got["sex"].cat.categories.tolist() == ["F", "M"] and got["sex"].cat.codes.tolist() == [0, -1, 1]
    assert got["diagnosis"].cat.categories.tolist() == ["428", "V45"]
    np.testing.assert_array_equal(got["smoker"], [1.0, 0.0, np.nan])


def test_typed_cells_give_the_same_as_text():
    typed = table(
        patient=pd.Series([1, 2, "A7"], dtype=object),
        creatinine=np.array([0.9, np.nan, 12.0]),
        age=np.array([70, 71, 72], np.int8),
        sex=pd.Categorical(["F", None, "M"]),
        smoker=pd.Series([True, False, None], dtype=object),
    )
    pd.testing.assert_frame_equal(conform(typed, COLUMNS, "")[0], conform(table(), COLUMNS, "")[0])


def test_canonical_form_is_a_fixed_point():
    once = conform(table(), COLUMNS, "")[0]
    pd.testing.assert_frame_equal(conform(once, COLUMNS, "")[0], once)


AGE = "expected a whole number, 0 to 120 years, got"
CREATININE = "expected a number, 0 to 30 mg/dL, got"


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"age": ["70", "old", "72"]}, f"column 'age', row 2: {AGE} text"),
        ({"age": ["70", "71", ""]}, f"column 'age', row 3: {AGE} no value"),
        ({"age": [70.0, np.nan, np.nan]}, f"column 'age', row 2 and 1 more: {AGE} no value"),
        ({"age": [70, 71.5, 72]}, f"column 'age', row 2: {AGE} a fraction"),
        ({"age": [True, False, True]}, f"column 'age', row 1 and 2 more: {AGE} true or false"),
        ({"age": pd.to_datetime(["2020-01-01"] * 3)}, f"column 'age', row 1 and 2 more: {AGE} a timestamp"),
        ({"creatinine": ["0.9", "88.4", "101"]}, f"column 'creatinine', row 2 and 1 more: {CREATININE} a number above"),
        ({"creatinine": ["-1", "", ""]}, f"column 'creatinine', row 1: {CREATININE} a number below the range"),
        ({"creatinine": ["inf", "", ""]}, f"column 'creatinine', row 1: {CREATININE} an infinite number"),
        ({"creatinine": ["1_0", "", ""]}, f"column 'creatinine', row 1: {CREATININE} text"),
        ({"creatinine": [0.9, [1.0], 2.0]}, f"column 'creatinine', row 2: {CREATININE} a list of values"),
        ({"sex": ["F", "female", "M"]}, "column 'sex', row 2: expected one of 'F', 'M', got something else"),
        ({"smoker": ["Yes", "2", "No"]}, "column 'smoker', row 2: expected one of 'No', 'Yes', got something else"),
        ({"patient": ["1", "", "3"]}, "column 'patient', row 2: expected a whole number or text, got no value"),
        ({"sex": None}, "expected a column 'sex', got none"),
        ({"creatinine": None, "Creatinin": ["1"] * 3}, "expected a column 'creatinine', got none (near: 'Creatinin')"),
        ({"smoker": None, "Smoker": ["No"] * 3}, "unknown column 'Smoker': is it 'smoker', which is"),
        ({"sex": None, "diagnosis": None}, "expected a column 'sex', got none; expected"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(changes, line):
    with pytest.raises(DataError) as told:
        conform(table(**changes), COLUMNS, "site 'a'")
    assert str(told.value).startswith(f"site 'a': {line}") and "\n" not in str(told.value)


def test_an_empty_table_a_doubled_column_and_many_mistakes():
    with pytest.raises(DataError, match="site 'a': expected at least one row, got an empty table"):
        conform(table().iloc[:0], COLUMNS, "site 'a'")
    doubled = pd.concat([table(), table().loc[:, ["age"]]], axis=1)
    with pytest.raises(DataError, match="column 'age' is there twice"):
        conform(doubled, COLUMNS, "site 'a'")
    with pytest.raises(DataError) as told:
        conform(pd.DataFrame({"x": [1]}), [Column(name=f"column{i}", kind="number") for i in range(9)], "site 'a'")
    assert str(told.value).endswith("; and 3 more") and "\n" not in str(told.value)


def test_a_column_nobody_asked_for_is_a_warning():
    got, warnings = conform(table(hospital=["x"] * 3), COLUMNS, "site 'a'")
    assert warnings == ["site 'a': column 'hospital' is not asked for and is not read"]
    assert "hospital" not in got


def test_rows_are_numbered_as_in_their_file():
    part = table(age=["70", "71", "old"])
    part.index = pd.Index([1, 5, 9], name="row")
    with pytest.raises(DataError, match="row 9: expected a whole number"):
        conform(part, COLUMNS, "file.csv")


CANARY = "ZZCANARYZZ"


@given(
    column=st.sampled_from([column.name for column in COLUMNS]),
    row=st.integers(0, 2),
    value=st.one_of(st.just(CANARY), st.just(987654321), st.just(987654321.5), st.just(f"{CANARY}\n987654321")),
)
def test_no_message_holds_a_value(column, row, value):
    frame = table().astype(object)
    frame.loc[row, column] = value
    try:
        _, words = conform(frame, COLUMNS, "site 'a'")
    except DataError as error:
        words = [str(error), str(error.__cause__), str(error.__context__)]
    assert not any(CANARY in word or "987654321" in word for word in words)


def test_near_names_ignore_case():
    assert near("DIAG1", ["diag_1", "age"]) == ["diag_1"]
    assert near("zzz", ["diag_1"]) == []


def test_ids_are_the_same_alone_and_among_others():
    alone = conform(table().iloc[2:], COLUMNS, "")[0]["patient"].tolist()
    assert alone == conform(table(), COLUMNS, "")[0]["patient"].tolist()[2:]
    long = pd.Series([2**62 + 1, 5, 7])
    for ids in (long, long.astype(object)):
        assert conform(table(patient=ids), COLUMNS, "")[0]["patient"].tolist() == long.tolist()
