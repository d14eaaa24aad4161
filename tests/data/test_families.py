"""Groups of all diagnoses: each code in one of them, the two classifications alike, and as features at a door."""

from __future__ import annotations

import itertools

import pytest

from benchmarks import population
from learner_jax.data import cohorts, families, features, icd9
from learner_jax.data.doors import open_records
from learner_jax.errors import ConfigError

RANGES = families.families()


def _of(vocabulary: str, code: str) -> set[str]:
    start = code[:3]
    return {one.group for one in RANGES if one.vocabulary == vocabulary and one.first <= start <= one.last}


def test_no_code_is_in_two_groups():
    tens = ["".join(parts) for parts in itertools.product("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "0123456789AB")]
    assert all(len(_of("ICD10CM", code)) <= 1 for code in tens)
    nines = [f"{number:03d}" for number in range(1, 1000)]
    nines += [f"{letter}{number:02d}" for letter in "VE" for number in range(100)]
    assert all(len(_of("ICD9CM", code)) == 1 for code in nines)


def test_by_icd9_they_are_the_groups_of_the_encounters():
    for number in range(1, 1000):
        expected = icd9.GROUP_NAMES[icd9.GROUP_OF[number]].replace(" ", "_")
        assert _of("ICD9CM", f"{number:03d}") == {expected}, number


@pytest.mark.parametrize(
    ("nine", "ten", "group"),
    [
        ("0389", "A419", "septicaemia"), ("1629", "C349", "malignant_neoplasm"), ("1977", "C787", "metastasis"),
        ("25000", "E119", "diabetes"), ("2761", "E871", "fluid_and_electrolytes"),
        ("2724", "E785", "lipids_and_obesity"),
        ("2859", "D649", "anaemia"), ("3310", "G309", "dementia"), ("29620", "F329", "psychosis"),
        ("30391", "F1020", "alcohol_and_drugs"), ("4019", "I10", "hypertension"),
        ("40391", "I120", "hypertensive_heart_or_kidney"), ("41071", "I214", "acute_ischaemic_heart"),
        ("41401", "I2510", "chronic_ischaemic_heart"), ("41519", "I2699", "pulmonary_circulation"),
        ("42731", "I4891", "conduction_and_rhythm"), ("4280", "I509", "heart_failure"), ("4254", "I429", "other_heart"),
        ("43491", "I639", "cerebrovascular"), ("4359", "G459", "cerebrovascular"), ("4439", "I739", "arteries"),
        ("486", "J189", "pneumonia_and_airways_infection"), ("49121", "J441", "chronic_obstructive_lung"),
        ("51881", "J9600", "other_respiratory"), ("53081", "K219", "upper_digestive"), ("5789", "K922", "intestine"),
        ("5715", "K7460", "liver"), ("57420", "K8020", "bile_and_pancreas"), ("5849", "N179", "acute_kidney_failure"),
        ("5859", "N189", "chronic_kidney_disease"), ("5990", "N390", "other_urinary"),
        ("71590", "M1990", "muscle_and_bone"),
        ("78605", "R0602", "symptoms"), ("82009", "S72009A", "injury_and_poisoning"),
        ("99673", "T82868A", "complication_of_care"), ("V4582", "Z9861", "status_and_aftercare"),
        ("E8889", "W19XXXA", "external_cause"),
    ],
)  # fmt: skip
def test_an_illness_is_in_the_same_group_by_both_classifications(nine, ten, group):
    """Pairs of the public equivalence mappings, for what is often coded."""
    assert _of("ICD9CM", nine) == _of("ICD10CM", ten) == {group}


def test_they_are_features_of_a_stay(tmp_path):
    population.to_meds(population.make(150, seed=3), tmp_path)
    with open_records(tmp_path) as records:
        rule, codes = cohorts.load("heart_failure_readmission")
        cohort = cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
        told = records.sql("SELECT stay, code FROM known WHERE kind = 'diagnosis' ORDER BY stay")
        order = [stay for (stay,) in records.sql("SELECT encounter FROM stays ORDER BY patient, admit, encounter")]
    by_stay: dict[int, set[str]] = {}
    for stay, code in told:
        vocabulary, _, body = code.partition("//")
        by_stay.setdefault(stay, set()).update(_of(vocabulary, body))
    names = families.names(RANGES)
    assert len(cohort.stays) == len(order) > 50
    assert {"heart_failure", "diabetes"} <= set().union(*by_stay.values())
    for stay, row in zip(order, found.rows, strict=True):
        flags = dict(zip(found.names, row, strict=True))
        assert {name.removeprefix("group_") for name in names if flags[name]} == by_stay.get(stay, set())


def test_a_file_that_is_none_is_one_line(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("vocabulary,first,last,group\nICD10CM,B00,A00,x\n")
    with pytest.raises(ConfigError, match="expected ranges of three characters, got 'B00' to 'A00'"):
        families.families(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="expected columns vocabulary, first, last and group, got others"):
        families.families(path)
    path.write_bytes(b"vocabulary,first,last,group\nICD10CM,A00,A09,\xff\n")
    with pytest.raises(ConfigError, match="expected columns vocabulary, first, last and group, got others"):
        families.families(path)
    with pytest.raises(ConfigError, match="expected groups of diagnoses, got"):
        families.families(tmp_path / "none.csv")
