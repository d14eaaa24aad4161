"""Readmission: federated equals pooled, one site alone equals one among ten, and nothing of the future."""

from __future__ import annotations

import importlib
import inspect
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import learner_jax.tasks
from learner_jax.data import encounters, icd9
from learner_jax.data.samples import sample_path
from learner_jax.data.schema import conform
from learner_jax.data.sites import TEST, TRAIN, VALID, encode_sites
from learner_jax.data.tables import read_sites, read_table
from learner_jax.errors import DataError
from learner_jax.leaves import site_ids
from learner_jax.statistics import combine
from learner_jax.tasks.readmission import checklist

SITES = ("h01", "h07", "h08", "h09")


@pytest.fixture(scope="module")
def frames():
    """Four of the sample's ten sites: 11,490 encounters."""
    return read_sites("diabetes130", sites=SITES)


@pytest.fixture(scope="module")
def encoded(frames):
    return encode_sites(checklist(), frames)


def small(frames, patients: int = 60) -> pd.DataFrame:
    """All encounters of the patients with most of them, of one site."""
    frame = frames["h09"]
    return frame[frame["patient"].isin(frame["patient"].value_counts().index[:patients])]


# ---- Federated equals pooled -----------------------------------------------------------------------------------------


def test_the_sites_sums_equal_the_pooled_ones(frames):
    rules = checklist()
    total = combine([rules.measure(frames[name]) for name in frames])
    pooled = rules.measure(pd.concat(frames.values()))
    for name, value in total.items():
        if value.dtype == np.int64:
            np.testing.assert_array_equal(value, pooled[name], err_msg=name)
        else:
            np.testing.assert_allclose(value, pooled[name], rtol=1e-12, err_msg=name)
    one, other = rules.fit(total), rules.fit(pooled)
    assert one["diagnoses"] == other["diagnoses"] and one["missing"] == other["missing"]
    np.testing.assert_allclose(one["mean"], other["mean"], rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(one["scale"], other["scale"], rtol=1e-12)


def test_means_and_scales_are_those_of_the_encoded_training_rows(frames, encoded):
    """Oracle: the arrays themselves, turned back and standardised by NumPy."""
    fitted, sites = encoded
    mean, scale = np.array(fitted["mean"]), np.array(fitted["scale"])
    x = np.concatenate([s.rows["x"][s.split == TRAIN] for s in sites.values()]).astype(np.float64) * scale + mean
    inside = np.abs(x - mean).max(axis=0) / scale < 7.99  # nothing was cut off here
    assert inside.sum() > 300
    np.testing.assert_allclose(x.mean(axis=0)[inside], mean[inside], atol=2e-5)
    np.testing.assert_allclose(np.maximum(x.std(axis=0), 0.25)[inside], scale[inside], atol=2e-4)


def test_kept_diagnoses_are_the_most_frequent_of_the_training_rows(frames, encoded):
    """Oracle: pandas value counts on text."""
    fitted, sites = encoded
    seen = {}
    for name, site in sites.items():
        frame = frames[name][~frames[name]["discharge_disposition_id"].isin(encounters.DIED_OR_HOSPICE)]
        for row in frame[site.split == TRAIN][list(encounters.DIAGNOSES)].astype(str).to_numpy():
            for code in {c.split(".")[0].zfill(3) for c in row if c != "?"}:
                seen[code] = seen.get(code, 0) + 1
    kept = [icd9.spell(code) for code in fitted["diagnoses"]]
    assert len(kept) == 120
    assert min(seen[code] for code in kept) >= max(count for code, count in seen.items() if code not in kept)


def test_what_leaves_a_site_has_one_shape_and_no_row(frames):
    rules = checklist()
    shapes = [{k: (v.shape, v.dtype.str) for k, v in rules.measure(frames[name]).items()} for name in ("h08", "h09")]
    assert shapes[0] == shapes[1]
    assert sum(np.prod(shape, dtype=int) for shape, _ in shapes[0].values()) < 4000


def test_a_checklist_says_what_its_sums_and_rows_look_like(frames, encoded):
    fitted, sites = encoded
    rules = checklist()
    zero, measured = rules.zero(), rules.measure(frames["h08"])
    assert {k: (v.shape, v.dtype) for k, v in zero.items()} == {k: (v.shape, v.dtype) for k, v in measured.items()}
    assert not any(value.any() for value in zero.values())
    template = rules.template(fitted)
    assert {k: (v.shape[1:], v.dtype) for k, v in template.items()} == {
        k: (v.shape[1:], v.dtype) for k, v in sites["h08"].rows.items()
    }


def test_what_is_fitted_goes_through_json(frames, encoded):
    fitted, sites = encoded
    again = json.loads(json.dumps(fitted))
    assert again == fitted
    assert_same(checklist().encode(frames["h08"], again), sites["h08"])


# ---- One site alone --------------------------------------------------------------------------------------------------


def assert_same(one, other):
    assert (
        one.rows["x"].dtype == one.rows["y"].dtype == np.float32
        and one.rows["x"].tobytes() == other.rows["x"].tobytes()
    )
    assert one.rows["y"].tobytes() == other.rows["y"].tobytes()
    assert one.split.tobytes() == other.split.tobytes() and one.group.tobytes() == other.group.tobytes()
    assert {k: v.tobytes() for k, v in one.cohorts.items()} == {k: v.tobytes() for k, v in other.cohorts.items()}


def test_a_site_alone_encodes_the_same_bits(frames, encoded, tmp_path):
    fitted, sites = encoded
    rules = checklist()
    assert list(sites) == list(site_ids(frames))
    for name in SITES:
        assert_same(rules.encode(frames[name].copy(), fitted), sites[name])
    # one's own file, in CSV and in Parquet with other types
    frames["h08"].to_csv(tmp_path / "h08.csv", index=False)
    frames["h08"].astype(str).to_parquet(tmp_path / "h08.parquet", index=False)
    for suffix in ("csv", "parquet"):
        assert_same(rules.encode(read_table(tmp_path / f"h08.{suffix}"), fitted), sites["h08"])


def test_the_publishers_own_columns_are_taken(frames, encoded):
    """`diabetic_data.csv` names patient and order otherwise, and has two columns that never vary."""
    fitted, sites = encoded
    theirs = frames["h08"].rename(columns={"patient": "patient_nbr"}).drop(columns="order")
    theirs["encounter_id"] = frames["h08"]["order"] * 1000 + 12522
    theirs = theirs.assign(examide="No", citoglipton="No")
    assert checklist().check(theirs, "x") == []
    assert_same(checklist().encode(theirs, fitted), sites["h08"])


def test_rows_in_another_order_are_the_same_rows(frames, encoded):
    fitted, sites = encoded
    shuffled = frames["h08"].sample(frac=1.0, random_state=3)
    kept = ~shuffled["discharge_disposition_id"].isin(encounters.DIED_OR_HOSPICE)
    order = np.argsort(shuffled["order"][kept].to_numpy())
    other = checklist().encode(shuffled, fitted)
    assert other.rows["x"][order].tobytes() == sites["h08"].rows["x"].tobytes()
    assert (other.split[order] == sites["h08"].split).all()


# ---- Nothing of the future -------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), how=st.sampled_from(["delete", "shuffle", "rewrite"]))
def test_later_encounters_move_no_feature_of_earlier_ones(frames, encoded, seed, how):
    fitted, _ = encoded
    rules = checklist()
    frame = small(frames).sort_values("order")
    draw = np.random.default_rng(seed)
    cut = int(draw.integers(1, len(frame)))
    early, late = frame.iloc[:cut], frame.iloc[cut:]
    if how == "delete":
        changed = early
    elif how == "shuffle":
        changed = pd.concat([late.sample(frac=1.0, random_state=seed % 2**31), early])
        changed.loc[late.index, "order"] = draw.permutation(late["order"].to_numpy())
    else:
        other = frames["h01"].sample(len(late), random_state=seed % 2**31).set_index(late.index)
        other[["patient", "order", "split"]] = late[["patient", "order", "split"]]
        changed = pd.concat([early, other])
    wanted = rules.encode(frame, fitted, labelled=False).rows["x"][:cut]
    got = rules.encode(changed, fitted, labelled=False).rows["x"]
    assert (got[:cut] if how != "shuffle" else got[-cut:]).tobytes() == wanted.tobytes()


def test_an_encounters_own_label_is_no_feature(frames, encoded):
    fitted, _ = encoded
    frame = small(frames).sort_values("order")
    last = frame.groupby("patient").tail(1)
    turned = frame.copy()
    turned.loc[last.index, "readmitted"] = turned.loc[last.index, "readmitted"].map(
        {"<30": "NO", "NO": "<30", ">30": "<30"}
    )
    one, other = (checklist().encode(f, fitted, labelled=False) for f in (frame, turned))
    assert one.rows["x"].tobytes() == other.rows["x"].tobytes()
    assert (one.rows["y"] != other.rows["y"]).any()


def test_earlier_encounters_do_move_features(frames, encoded):
    """The property above would hold without any history; and here it is seen by hand."""
    fitted, _ = encoded
    frame = small(frames, 1).sort_values("order")
    x = checklist().encode(frame, fitted, labelled=False).rows["x"]
    stays = x[:, fitted["inputs"].index("log earlier stays")]
    assert len(frame) > 3 and (np.diff(stays) > 0).all()
    place = fitted["inputs"].index("log earlier returns")
    raw = x[:, place] * fitted["scale"][place] + fitted["mean"][place]
    came_back = np.concatenate([[0], np.cumsum(frame["readmitted"].to_numpy() == "<30")[:-1]])
    np.testing.assert_allclose(raw, np.log1p(came_back), atol=1e-5)


def test_no_input_is_the_patient_the_order_or_the_split(frames, encoded):
    fitted, sites = encoded
    moved = frames["h08"].copy()
    moved["patient"] = moved["patient"] + 10**6
    moved["order"] = moved["order"] * 3 + 7
    moved["split"] = "train"
    assert checklist().encode(moved, fitted).rows["x"].tobytes() == sites["h08"].rows["x"].tobytes()


# ---- Rows, splits, cohorts -------------------------------------------------------------------------------------------


def test_the_cohorts_are_those_of_the_publication():
    """On the whole sample, counted by pandas on text: 99,343 encounters, 16,912 with heart failure."""
    table = pd.read_parquet(sample_path("diabetes130"))
    alive = table[~table["discharge_disposition_id"].isin([11, 13, 14, 19, 20, 21])]
    failing = np.any([np.asarray(alive[f"diag_{i}"], "U6").astype("U3") == "428" for i in (1, 2, 3)], axis=0)
    assert (len(alive), int(failing.sum())) == (99_343, 16_912)
    assert int((alive["split"] == "test").sum()) == 19_800


def test_rows_labels_and_splits(frames, encoded):
    _, sites = encoded
    for name, site in sites.items():
        frame = frames[name][~frames[name]["discharge_disposition_id"].isin([11, 13, 14, 19, 20, 21])]
        assert site.rows["y"].tolist() == (frame["readmitted"] == "<30").astype(float).tolist()
        assert ((site.split == TEST) == (frame["split"] == "test").to_numpy()).all()
        assert site.group.tolist() == frame["patient"].tolist()
        failing = np.any(
            [frame[f"diag_{i}"].astype(object).map(lambda code: str(code)[:3] == "428") for i in (1, 2, 3)], axis=0
        )
        assert (site.cohorts["heart failure"] == failing).all() and site.cohorts["everyone"].all()
        assert np.isfinite(site.rows["x"]).all() and np.abs(site.rows["x"]).max() <= 8.0
        train, valid = set(site.group[site.split == TRAIN]), set(site.group[site.split == VALID])
        assert not train & valid and abs(len(valid) / (len(train) + len(valid)) - 0.1) < 0.05


def test_without_a_split_patients_are_drawn(frames):
    site = checklist(test_share=0.3).encode(frames["h09"].drop(columns="split"), encode_sites(checklist(), frames)[0])
    test = set(site.group[site.split == TEST])
    assert abs(len(test) / len(set(site.group)) - 0.3) < 0.03 and not test & set(site.group[site.split != TEST])


def test_a_prediction_needs_no_label_and_keeps_every_row(frames, encoded):
    fitted, sites = encoded
    asked = frames["h08"].drop(columns=["readmitted", "split", "patient", "order"])
    got = checklist().encode(asked, fitted, labelled=False)
    assert len(got.rows["x"]) == len(asked) > len(sites["h08"].split)
    assert (got.rows["y"] == 0).all()


# ---- Codes -----------------------------------------------------------------------------------------------------------


def test_lost_zeros_are_put_back():
    assert [icd9.category(c) for c in ("8", "008", "8.0", "38", "038.9", "427", "V45", "E888")] == [
        8, 8, 8, 38, 38, 427, 1045, 2088,
    ]  # fmt: skip
    assert [icd9.category(c) for c in ("?", "", "abc", "4280", "V1234", "E99999")] == [0] * 6
    assert icd9.GROUP_NAMES[icd9.GROUP_OF[icd9.category("38")]] == "septicaemia"
    assert icd9.GROUP_NAMES[icd9.GROUP_OF[icd9.category("428.0")]] == "heart failure"


def test_every_category_has_one_group():
    table = np.array(icd9.GROUP_OF)
    assert (table[1:1000] >= 0).all() and (table[1200:] >= 0).all() and table[0] == -1
    assert set(table[table >= 0]) == set(range(len(icd9.GROUP_NAMES)))
    ranges = [(low, high) for group in icd9.GROUPS.values() for low, high in group]
    assert sum(high - low + 1 for low, high in ranges) == len({c for low, high in ranges for c in range(low, high + 1)})


@given(st.integers(1, 999))
def test_spelling_and_reading_agree(number):
    assert icd9.category(icd9.spell(number)) == number == icd9.category(str(number))


# ---- Wrong tables ----------------------------------------------------------------------------------------------------


ALL = "row 1 and 219 more"
OUTCOME = f"column 'readmitted', {ALL}: expected one of '<30', '>30', 'NO', got"


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda f: f.drop(columns="diag_1"), "expected a column 'diag_1', got none"),
        (lambda f: f.rename(columns={"diag_1": "Diag1"}), "expected a column 'diag_1', got none (near: 'Diag1')"),
        (lambda f: f.rename(columns={"split": "Split"}), "unknown column 'Split': is it 'split'"),
        (
            lambda f: f.assign(time_in_hospital=24),
            "expected a whole number, 1 to 14 days, got a number above the range",
        ),
        (lambda f: f.assign(readmitted="maybe"), f"{OUTCOME} something else"),
        (lambda f: f.assign(readmitted=None), f"{OUTCOME} no value"),
        (lambda f: f.assign(order=np.nan), f"column 'order', {ALL}: expected a number, got no value"),
        (lambda f: f.assign(num_medications="many"), f"column 'num_medications', {ALL}: expected a whole number"),
        (lambda f: f.assign(patient=1, split="test", order=5), "'order', row 2 and 218 more: the same patient has"),
        (lambda f: f.assign(patient=1), f"column 'split', {ALL}: the patient is in both train and test"),
        (lambda f: f.iloc[:0], "expected at least one row, got an empty table"),
        (lambda f: f.assign(discharge_disposition_id=11), "encounters that did not end in death or hospice, got none"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(frames, change, line):
    frame = frames["h08"].reset_index(drop=True)
    with pytest.raises(DataError) as told:
        checklist().check(change(frame), "site 'h08'")
    assert str(told.value).startswith("site 'h08': ") and line in str(told.value) and "\n" not in str(told.value)


def test_one_class_no_training_row_and_few_rows_work_with_a_warning(frames, encoded):
    fitted, _ = encoded
    rules = checklist()
    one_class = frames["h08"].assign(readmitted="NO")
    assert rules.check(one_class, "site 'h08'") == [
        "site 'h08': all training rows have the same outcome; the site adds little alone. If both "
        "occur here, look at how the outcome is coded"
    ]
    assert (rules.encode(one_class, fitted).rows["y"] == 0).all()
    only_test = frames["h08"].assign(split="test")
    assert rules.check(only_test, "x") == ["x: no training rows; the site can only be judged"]
    assert rules.measure(only_test)["column/rows"] == 0
    one_row = frames["h08"].iloc[:1]
    rules.check(one_row, "x")
    total = combine([rules.measure(one_row), rules.measure(only_test)])
    assert np.isfinite(rules.encode(one_row, rules.fit(total)).rows["x"]).all()
    assert rules.check(frames["h09"], "x") == []


CANARY, NUMBER = "ZZCANARYZZ", 987654321


def test_no_message_holds_a_value(frames):
    """A canary in each column in turn: no message, and no chained error, repeats it."""
    frame = frames["h08"].head(30).astype(object)
    for column in frame.columns:
        for value in (CANARY, NUMBER, str(NUMBER), [CANARY]):
            odd = frame.copy()
            odd.at[odd.index[4], column] = value
            try:
                words = checklist().check(odd, "site 'h08'")
            except DataError as error:
                words = [
                    str(error),
                    str(error.__cause__),
                    *([] if error.__suppress_context__ else [str(error.__context__)]),
                ]
            assert not any(CANARY in word or str(NUMBER) in word for word in words), column


# ---- The factory -----------------------------------------------------------------------------------------------------


def test_the_name_is_the_factory_whatever_was_imported_first():
    importlib.import_module("learner_jax.tasks.readmission")
    assert callable(learner_jax.tasks.readmission)
    fields = inspect.signature(learner_jax.tasks.readmission).parameters
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in fields.values())
    assert list(fields) == list(inspect.signature(checklist).parameters)


def test_the_task_has_a_model_a_loss_a_row_and_metrics():
    task = learner_jax.tasks.readmission()
    loss = np.asarray(task.loss(np.array([0.0, 2.0], np.float32), np.array([1.0, 0.0], np.float32)))
    np.testing.assert_allclose(loss, [np.log(2.0), np.log1p(np.exp(2.0))], rtol=1e-6)
    assert [metric.name for metric in task.metrics] == ["auroc", "auprc", "brier", "log_loss"]
    assert task.checklist.sample == "diabetes130" and task.checklist.label == "readmitted"


def test_canonical_tables_are_read_again_unchanged(frames):
    once, _ = conform(frames["h08"].drop(columns="weight"), encounters.COLUMNS, "")
    pd.testing.assert_frame_equal(conform(once, encounters.COLUMNS, "")[0], once)


def test_another_code_system_is_seen(frames):
    icd10 = frames["h08"].assign(diag_1="I50.9", diag_2="E11.9", diag_3="I10")
    (told,) = [text for text in checklist().check(icd10, "x") if "ICD" in text]
    assert "67 of 100 diagnoses are no ICD-9-CM codes" in told  # E11.9 looks like a short E code of ICD-9
    assert "Translate them" in told
    assert not [text for text in checklist().check(frames["h08"], "x") if "ICD" in text]
