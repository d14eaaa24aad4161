"""Elixhauser's groups and van Walraven's points, of codes that were worked out by hand."""

from __future__ import annotations

import pytest

from learner_jax.data import cohorts, features
from learner_jax.data.doors import open_records
from learner_jax.errors import ConfigError
from tests.oracles import elixhauser


def told(folder, patients: list[list[tuple[str, str]]]) -> list[dict[str, float]]:
    """Features of patients with one stay each, of which these are the diagnoses: (system, code)."""
    folder.mkdir()
    stays = [f"{n},{n},2020-01-{1 + n % 20:02},2020-01-{4 + n % 20:02}\n" for n in range(len(patients))]
    (folder / "stays.csv").write_text("patient,encounter,admit,discharge\n" + "".join(stays))
    events = [f"{n},{n},diagnosis,{system},{code}\n" for n, codes in enumerate(patients) for system, code in codes]
    (folder / "events.csv").write_text("patient,encounter,kind,system,code\n" + "".join(events))
    (folder / "rule.yaml").write_text("name: everybody\n")
    rule, codes = cohorts.load(str(folder / "rule.yaml"))
    with open_records(folder) as records:
        cohort = cohorts.find(records, rule, codes)
        found = features.find(records, features.charlson())
    rows = {
        int(s.patient): dict(zip(found.names, row, strict=True))
        for s, row in zip(cohort.stays, found.rows, strict=True)
    }
    return [rows[n] for n in range(len(patients))]  # type: ignore[misc]


def test_each_group_by_hand(tmp_path):
    rows = told(tmp_path / "all", [[(f"ICD{system}CM", code)] for system, code, _ in elixhauser.CASES])
    for (_, code, groups), row in zip(elixhauser.CASES, rows, strict=True):
        mine = {name.removeprefix("elixhauser_") for name, value in row.items() if "elixhauser_" in name and value}
        assert mine == set(groups.split()), code
        assert row["elixhauser"] == sum(elixhauser.POINTS[group] for group in groups.split()), code


def test_every_group_has_a_code_of_each_classification_in_and_one_out():
    groups = {group.name.removeprefix("elixhauser_"): group for group in features.elixhauser()}
    assert {name: group.points for name, group in groups.items()} == elixhauser.POINTS and len(groups) == 31
    assert not {group.name for group in features.elixhauser()} & {group.name for group in features.charlson()}
    for system in ("9", "10"):
        assert {one for v, _, of in elixhauser.CASES for one in of.split() if v == system} == set(groups)


def test_points_of_several_codes(tmp_path):
    rows = told(tmp_path / "all", [[("ICD9CM", code) for code in codes] for codes, _ in elixhauser.TOGETHER])
    assert [row["elixhauser"] for row in rows] == [points for _, points in elixhauser.TOGETHER]
    assert rows[1]["elixhauser_solid_tumour"] == 1, "the flag stays"


def test_a_file_that_is_none_is_one_line(tmp_path):
    (tmp_path / "e.csv").write_text("vocabulary,code,match,group,charlson\nICD9CM,1,exact,a,1\n")
    with pytest.raises(ConfigError, match="expected columns vocabulary, code, match, group and walraven, got others"):
        features.elixhauser(tmp_path / "e.csv")
