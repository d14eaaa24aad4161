"""ICD-9-CM diagnosis codes: their three-digit category, and 49 groups that a physician would name.

Tables that went through a spreadsheet have lost leading zeros ("38" is 038, septicaemia; "8" is 008), so the integer
part is padded to three digits before anything is matched. A category is an index into one fixed list, the same at
every site, so that counts of codes add over sites as plain arrays.
"""

from __future__ import annotations

import re

UNKNOWN = 0
"""Category of a missing code, or of one that is no ICD-9 code."""

SIZE = 2200
"""Categories: 0 unknown, 1-999 numeric, 1000-1099 V codes, 1200-2199 E codes."""

_NUMERIC = re.compile(r"(\d{1,3})(?:\.(\d{0,2}))?$")
_LETTER = re.compile(r"([VE])(\d{1,3})(?:\.(\d{0,2}))?$")


def category(code: str) -> int:
    """Index in [0, SIZE) of a code's three-digit category; `UNKNOWN` for what is no code.

    >>> category("250.83"), category("38"), category("038"), category("V45"), category("?")
    (250, 38, 38, 1045, 0)
    """
    text = code.strip().upper()
    if found := _NUMERIC.match(text):
        return int(found[1])
    if found := _LETTER.match(text):
        number = int(found[2])
        if found[1] == "E":
            return 1200 + number
        return 1000 + number if number < 100 else UNKNOWN
    return UNKNOWN


def spell(index: int) -> str:
    """The three-digit category as it is written.

    >>> [spell(i) for i in (8, 428, 1045, 2088, 0)]
    ['008', '428', 'V45', 'E888', '?']
    """
    if index == UNKNOWN:
        return "?"
    if index < 1000:
        return f"{index:03d}"
    return f"V{index - 1000:02d}" if index < 1200 else f"E{index - 1200:03d}"


def detail(code: str) -> str:
    """The digits after the point, "" if none.

    >>> detail("250.83"), detail("250"), detail("V45.81")
    ('83', '', '81')
    """
    return code.strip().partition(".")[2]


# Each group is a list of closed ranges of categories; the first group that holds a code takes it.
GROUPS: dict[str, tuple[tuple[int, int], ...]] = {
    "septicaemia": ((38, 38),),
    "other infection": ((1, 37), (39, 139)),
    "malignant neoplasm": ((140, 195), (200, 209), (230, 234)),
    "metastasis": ((196, 199),),
    "other neoplasm": ((210, 229), (235, 239)),
    "thyroid": ((240, 246),),
    "diabetes": ((249, 250),),
    "fluid and electrolytes": ((276, 276),),
    "lipids and obesity": ((272, 272), (278, 278)),
    "other endocrine or metabolic": ((247, 248), (251, 271), (273, 275), (277, 277), (279, 279)),
    "anaemia": ((280, 285),),
    "other blood": ((286, 289),),
    "dementia": ((290, 290), (294, 294), (331, 331)),
    "psychosis": ((295, 299), (293, 293)),
    "alcohol and drugs": ((291, 292), (303, 305)),
    "other mental": ((300, 302), (306, 319)),
    "nervous system": ((320, 330), (332, 359)),
    "eye and ear": ((360, 389),),
    "hypertension": ((401, 401), (405, 405)),
    "hypertensive heart or kidney": ((402, 404),),
    "acute ischaemic heart": ((410, 411),),
    "chronic ischaemic heart": ((412, 414),),
    "pulmonary circulation": ((415, 417),),
    "conduction and rhythm": ((426, 427),),
    "heart failure": ((428, 428),),
    "other heart": ((390, 400), (406, 409), (418, 425), (429, 429)),
    "cerebrovascular": ((430, 439),),
    "arteries": ((440, 449),),
    "veins and other circulation": ((450, 459),),
    "pneumonia and airways infection": ((460, 466), (480, 489)),
    "chronic obstructive lung": ((490, 496),),
    "other respiratory": ((467, 479), (497, 519)),
    "upper digestive": ((520, 539),),
    "intestine": ((540, 569), (578, 579)),
    "liver": ((570, 573),),
    "bile and pancreas": ((574, 577),),
    "acute kidney failure": ((584, 584),),
    "chronic kidney disease": ((585, 588),),
    "other urinary": ((580, 583), (589, 599)),
    "genital": ((600, 629),),
    "pregnancy": ((630, 679),),
    "skin": ((680, 709),),
    "muscle and bone": ((710, 739),),
    "congenital or perinatal": ((740, 779),),
    "symptoms": ((780, 799),),
    "injury and poisoning": ((800, 995),),
    "complication of care": ((996, 999),),
    "status and aftercare": ((1000, 1099),),
    "external cause": ((1200, 2199),),
}

GROUP_NAMES: tuple[str, ...] = tuple(GROUPS)


def _group_table() -> tuple[int, ...]:
    table = [-1] * SIZE
    for number, ranges in enumerate(GROUPS.values()):
        for low, high in ranges:
            for index in range(low, high + 1):
                if table[index] == -1:
                    table[index] = number
    return tuple(table)


GROUP_OF: tuple[int, ...] = _group_table()
"""Group number of each category, -1 where none (unknown codes)."""
