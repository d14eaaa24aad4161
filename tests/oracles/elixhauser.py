"""Elixhauser's groups by hand: codes of each, codes that just miss it, and points, worked out from the two papers.

References: Quan et al., Med Care 43:1130 (2005), table 2; van Walraven et al., Med Care 47:626 (2009), table 2.
"""

from __future__ import annotations

CASES: tuple[tuple[str, str, str], ...] = (
    ("9", "428.23", "heart_failure"), ("10", "I50.22", "heart_failure"),
    ("9", "425.3", ""), ("9", "402.90", "hypertension_complicated"), ("10", "I51.7", ""),
    ("9", "402.91", "heart_failure hypertension_complicated"),
    ("10", "I13.0", "heart_failure hypertension_complicated"),
    ("9", "427.31", "arrhythmia"), ("10", "I48.91", "arrhythmia"),
    ("9", "427.5", ""), ("9", "426.11", ""), ("10", "I46.9", ""),
    ("9", "424.1", "valvular"), ("10", "I35.0", "valvular"), ("9", "746.2", ""), ("10", "Q23.4", ""),
    ("9", "415.19", "pulmonary_circulation"), ("10", "I26.99", "pulmonary_circulation"),
    ("9", "417.1", ""), ("10", "I28.1", ""), ("9", "416.8", "pulmonary_circulation chronic_pulmonary"),
    ("10", "I27.20", "pulmonary_circulation"), ("10", "I27.81", "pulmonary_circulation chronic_pulmonary"),
    ("9", "440.21", "peripheral_vascular"), ("10", "I73.9", "peripheral_vascular"), ("9", "442.2", ""),
    ("10", "I73.0", ""),
    ("9", "401.9", "hypertension"), ("10", "I10", "hypertension"), ("9", "437.2", ""), ("10", "I16.0", ""),
    ("9", "405.91", "hypertension_complicated"), ("10", "I15.0", "hypertension_complicated"),
    ("9", "403.90", "hypertension_complicated"), ("9", "403.91", "hypertension_complicated renal_failure"),
    ("9", "342.90", "paralysis"), ("10", "G81.94", "paralysis"), ("9", "344.81", ""), ("10", "G83.5", ""),
    ("9", "334.1", "paralysis other_neurological"), ("10", "G11.4", "paralysis other_neurological"),
    ("9", "345.90", "other_neurological"), ("10", "G40.909", "other_neurological"), ("9", "333.6", ""),
    ("10", "G44.1", ""),
    ("9", "496", "chronic_pulmonary"), ("10", "J44.1", "chronic_pulmonary"), ("9", "506.3", ""), ("10", "J68.3", ""),
    ("9", "250.02", "diabetes"), ("10", "E11.9", "diabetes"), ("9", "249.00", ""), ("10", "E08.9", ""),
    ("9", "250.82", "diabetes_complicated"), ("10", "E11.65", "diabetes_complicated"), ("9", "250.32", "diabetes"),
    ("10", "E10.11", "diabetes"),
    ("9", "244.9", "hypothyroidism"), ("10", "E03.9", "hypothyroidism"), ("9", "245.2", ""), ("10", "E06.3", ""),
    ("9", "585.6", "renal_failure"), ("10", "N18.6", "renal_failure"), ("9", "584.9", ""), ("10", "N17.9", ""),
    ("9", "572.3", "liver"), ("10", "K74.60", "liver"), ("9", "573.0", ""), ("10", "K76.1", ""),
    ("9", "531.70", "peptic_ulcer"), ("10", "K25.9", "peptic_ulcer"), ("9", "531.40", ""), ("10", "K25.4", ""),
    ("9", "042", "aids"), ("10", "B20", "aids"), ("9", "045.90", ""), ("10", "B23.0", ""), ("10", "Z21", ""),
    ("9", "202.80", "lymphoma"), ("10", "C83.30", "lymphoma"), ("9", "203.10", ""), ("10", "C90.10", ""),
    ("9", "197.7", "metastatic"), ("10", "C78.7", "metastatic"), ("9", "195.8", "solid_tumour"),
    ("10", "C76.8", "solid_tumour"),
    ("9", "162.9", "solid_tumour"), ("10", "C34.90", "solid_tumour"), ("9", "173.9", ""), ("10", "C44.90", ""),
    ("9", "714.0", "rheumatic"), ("10", "M05.79", "rheumatic"), ("9", "715.90", ""), ("10", "M31.4", ""),
    ("9", "287.5", "coagulopathy"), ("10", "D69.6", "coagulopathy"), ("9", "287.0", ""), ("10", "D69.2", ""),
    ("9", "278.01", "obesity"), ("10", "E66.01", "obesity"), ("9", "278.1", ""), ("10", "E65", ""),
    ("9", "263.9", "weight_loss"), ("10", "R64", "weight_loss"), ("9", "783.1", ""), ("10", "R63.5", ""),
    ("9", "276.1", "fluid_electrolyte"), ("10", "E87.1", "fluid_electrolyte"), ("9", "275.2", ""), ("10", "E83.42", ""),
    ("9", "280.0", "blood_loss_anaemia"), ("10", "D50.0", "blood_loss_anaemia"), ("9", "285.1", ""), ("10", "D62", ""),
    ("9", "280.9", "deficiency_anaemia"), ("10", "D51.0", "deficiency_anaemia"), ("9", "282.60", ""),
    ("10", "D57.1", ""),
    ("9", "303.90", "alcohol"), ("10", "F10.20", "alcohol"), ("9", "291.4", ""), ("10", "K70.2", "liver"),
    ("9", "571.2", "alcohol liver"), ("9", "425.5", "alcohol heart_failure"), ("10", "I42.6", "alcohol heart_failure"),
    ("9", "304.00", "drug"), ("10", "F11.20", "drug"), ("9", "305.1", ""), ("10", "F17.210", ""),
    ("9", "295.90", "psychosis"), ("10", "F20.9", "psychosis"), ("9", "296.00", ""), ("10", "F21", ""),
    ("9", "296.54", "psychosis depression"), ("10", "F31.5", "psychosis depression"),
    ("9", "311", "depression"), ("10", "F32.9", "depression"), ("9", "296.40", ""), ("10", "F34.0", ""),
)  # fmt: skip
"""ICD version, code, the groups that it is of."""
POINTS = {
    "heart_failure": 7, "arrhythmia": 5, "valvular": -1, "pulmonary_circulation": 4, "peripheral_vascular": 2,
    "hypertension": 0, "hypertension_complicated": 0, "paralysis": 7, "other_neurological": 6, "chronic_pulmonary": 3,
    "diabetes": 0, "diabetes_complicated": 0, "hypothyroidism": 0, "renal_failure": 5, "liver": 11, "peptic_ulcer": 0,
    "aids": 0, "lymphoma": 9, "metastatic": 12, "solid_tumour": 4, "rheumatic": 0, "coagulopathy": 3, "obesity": -4,
    "weight_loss": 6, "fluid_electrolyte": 5, "blood_loss_anaemia": -2, "deficiency_anaemia": -2, "alcohol": 0,
    "drug": -7, "psychosis": 0, "depression": -3,
}  # fmt: skip
TOGETHER: tuple[tuple[tuple[str, ...], int], ...] = (
    (("428.0", "427.31", "585.9"), 7 + 5 + 5),
    (("197.7", "162.9"), 12),  # the graver of the two tumours
    (("162.9", "162.5"), 4),
    (("401.9", "402.91"), 7),
    (("278.01", "304.00"), -4 - 7),
    (("571.2", "287.5", "276.1", "263.9"), 11 + 3 + 5 + 6),
    (("202.80", "197.7", "162.9"), 9 + 12),
    (("250.00", "250.42"), 0),
)
"""Codes of ICD-9-CM that one patient has, and the points of all."""
