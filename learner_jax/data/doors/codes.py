"""The names of code systems, as hospitals and publishers spell them, and a code's system where nobody says it.

Every door asks here, so that one code list fits all of them. What is given back is SQL, since millions of rows pass.
"""

from __future__ import annotations

SPELLED = {
    "ICD9CM": ("icd9cm", "icd9", "icd-9-cm", "icd-9", "http://hl7.org/fhir/sid/icd-9-cm", "2.16.840.1.113883.6.103"),
    "ICD10CM": (
        "icd10cm", "icd10", "icd-10-cm", "icd-10", "http://hl7.org/fhir/sid/icd-10-cm", "icd10gm",
        "http://hl7.org/fhir/sid/icd-10", "2.16.840.1.113883.6.90", "http://fhir.de/codesystem/bfarm/icd-10-gm",
    ),
    "ICD9Proc": ("icd9proc", "icd9pcs", "2.16.840.1.113883.6.104"),
    "ICD10PCS": ("icd10pcs", "http://www.cms.gov/medicare/coding/icd10", "2.16.840.1.113883.6.4"),
    "SNOMED": ("snomed", "snomedct", "snomedct_us", "http://snomed.info/sct", "2.16.840.1.113883.6.96"),
    "LOINC": ("loinc", "http://loinc.org", "2.16.840.1.113883.6.1"),
    "RxNorm": ("rxnorm", "rxnorm extension", "http://www.nlm.nih.gov/research/umls/rxnorm", "2.16.840.1.113883.6.88"),
    "NDC": ("ndc", "http://hl7.org/fhir/sid/ndc", "2.16.840.1.113883.6.69"),
    "ATC": ("atc", "http://www.whocc.no/atc", "2.16.840.1.113883.6.73"),
    "CPT4": ("cpt4", "cpt", "http://www.ama-assn.org/go/cpt"),
    "HCPCS": ("hcpcs", "http://www.cms.gov/medicare/coding/hcpcsreleasecodesets"),
}  # fmt: skip
"""Vocabulary, named as OMOP does, and its other names in small letters."""

_WITHIN = (
    ("procedure.*icd-?9", "ICD9Proc"), ("procedure.*icd-?10", "ICD10PCS"), ("icd-?9", "ICD9CM"),
    ("icd-?10", "ICD10CM"), ("snomed", "SNOMED"), ("loinc", "LOINC"), ("rxnorm", "RxNorm"), ("[-/]ndc", "NDC"),
)  # fmt: skip
"""What a hospital's own name of a system may hold ("mimic-diagnosis-icd9")."""


def vocabulary(said: str) -> str:
    """SQL: the vocabulary that an expression names, or what it says itself.

    Args:
      said: SQL of a system's name.
    """
    known = [
        f"WHEN lower({said}) IN ({', '.join(repr(one) for one in words)}) THEN '{name}'"
        for name, words in SPELLED.items()
    ]
    within = [f"WHEN regexp_matches(lower({said}), '{pattern}') THEN '{name}'" for pattern, name in _WITHIN]
    return f"CASE {' '.join([*known, *within])} ELSE {said} END"


def by_shape(code: str) -> str:
    """SQL: the system of a diagnosis' code by its form alone; NULL where the form says nothing.

    Three to five digits are ICD-9-CM, as are E8.., E9.. and V..; a letter, a digit and more are ICD-10-CM; six digits
    and more are SNOMED CT.

    Args:
      code: SQL of the code.
    """
    return (
        rf"CASE WHEN regexp_matches(plain({code}), '^\d{{3,5}}$') THEN 'ICD9CM' "
        rf"WHEN regexp_matches(plain({code}), '^E[89]\d{{2,3}}$|^V\d{{2,4}}$') THEN 'ICD9CM' "
        rf"WHEN regexp_matches(plain({code}), '^[A-Z]\d[0-9A-Z][0-9A-Z]{{0,4}}$') THEN 'ICD10CM' "
        rf"WHEN regexp_matches(plain({code}), '^\d{{6,18}}$') THEN 'SNOMED' END"
    )
