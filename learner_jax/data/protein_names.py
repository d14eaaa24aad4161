"""What antibodies are called: one name for a protein, whatever a laboratory or a maker calls it.

By rule: marks of makers and tools come off ("_TotalSeqB", "ADT_", "anti-human", a barcode such as "-GCTAGATAGATGCAA"),
capitals, blanks, hyphens and Greek letters do not count, except that a hyphen between two digits does ("CD3-1" is a
second clone of CD3, "CD31" is another protein). Then the list `configs/codes/protein_names.csv` says which names are
one protein; of "IL7Ralpha (CD127)" either part may be the one in the list. A name that is in no list stays as it is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from learner_jax.data.code_lists import lines, shipped
from learner_jax.data.schema import near

_GREEK = str.maketrans({"α": "a", "β": "b", "γ": "g", "δ": "d", "ε": "e", "κ": "k", "λ": "l", "µ": "m", "μ": "m"})
_BEFORE = re.compile(
    r"^(?:(?:adt|ab|prot|protein)[_:.-]+|[abcd]\d{4}[_ .-]+|anti[_ .-]+(?:(?:human|mouse)(?:/(?:human|mouse))*[_ .-]+)?"
    r"|(?:hu|huMs|huMsRt|human)[_.]+)",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"(?:[_ .-]*total-?seq[_ -]*[abcd]?|[_:.-](?:adt|prot|protein)|[_ .-][abcd]\d{4}|[_ .-][ACGT]{12,}(?:-1)?)$",
    re.IGNORECASE,
)
_CONTROL = re.compile(
    r"isotype|^(?:(?:mouse|rat|(?:armenian )?hamster|rabbit|goat)[ _-]*ig[gm]|ig[ _-]?g[1234][abc]?)"
    r"[ _-]*[1234]?[abc]?[ _,.-]*(?:kappa|lambda|[κkλ])?[ _,.-]*(?:ctrl|control)?(?:-\d)?$|ig[gm].*(?:ctrl|control)",
    re.IGNORECASE,
)
_TAG = re.compile(r"^(?:hto|hashtag|cmo|sample[_ -]?tag)[_ .-]?\d*", re.IGNORECASE)
_SURE = re.compile(
    r"total-?seq|[_ .-][ACGT]{12,}$|^(?:adt|prot)[_:.-]|[_:.-](?:adt|prot)$|^anti[_ .-]+human", re.IGNORECASE
)
NO_GENE = frozenset(
    "CD3 CD8 CD8a CD11b CD11c CD16 CD25 CD45RA CD45RB CD45RO CD56 CD57 CD62L CD127 HLA-DR PD-1 PD-L1".split()
)
"""Names of proteins that no human gene has as its symbol."""


class Panel(NamedTuple):
    """The antibodies of a matrix's columns.

    Attributes:
      names: canonical names, each once.
      columns: int64[len(names)], the column of each.
      notes: what was left out and why, in words.
    """

    names: tuple[str, ...]
    columns: np.ndarray
    notes: tuple[str, ...]


def aliases(path: Path | None = None) -> dict[str, str]:
    """Key of a name -> the name that is used.

    Args:
      path: columns alias and protein; None takes the shipped list.

    Raises:
      ConfigError: the file is not that.
    """
    path = path or shipped("codes", ".csv")["protein_names"]
    found: dict[str, str] = {}
    for alias, protein in lines(path, "names of proteins", ("alias", "protein"), _pair):
        found[key(alias)] = found[key(protein)] = protein
    return found


def canonical(name: str) -> str:
    """The name that is used for a protein, of any of its names.

    >>> [canonical(name) for name in ("CD8a_TotalSeqB", "IL7Ralpha (CD127)", "PD1", "CD3-1", "CD31", "Nectin-9")]
    ['CD8', 'CD127', 'PD-1', 'CD3', 'CD31', 'Nectin-9']
    """
    known = _shipped_aliases()
    plain = _without_marks(str(name))
    outer, inner = _parts(plain)
    for part in (plain, outer, inner, *_shorter(outer)):
        if part and key(part) in known:
            return known[key(part)]
    return plain


def near_proteins(name: str) -> str:
    """ " (near: TIGIT)" for a name that no protein of the list has, and that one may have been meant by; else "".

    >>> near_proteins("TIGTI"), near_proteins("CD4"), near_proteins("Foo")
    (' (near: TIGIT)', '', '')
    """
    known = set(_shipped_aliases().values())
    found = [] if canonical(name) in known else near(name, known)
    return f" (near: {', '.join(found)})" if found else ""


def panel_of(names: Sequence[str], totals: np.ndarray) -> Panel:
    """One column a protein: controls and tags of samples left out; of two antibodies to one protein, the brighter.

    Counts of two clones are not summed: each has its own background and gain.

    Args:
      names: [P] as written.
      totals: float64[P], sum of each column, which tells the brighter.
    """
    notes = []
    controls = [name for name in names if is_control(name)]
    tags = [name for name in names if _TAG.match(_without_marks(name))]
    if controls:
        notes.append(f"isotype controls are left out of the proteins: {_some(controls)}")
    if tags:
        notes.append(f"tags of samples are left out of the proteins: {_some(tags)}")
    left_out = {*controls, *tags}
    of: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        if name not in left_out:
            of.setdefault(canonical(name), []).append(column)
    columns = []
    for protein, found in of.items():
        best = max(found, key=lambda column: (totals[column], -column))
        columns.append(best)
        if len(found) > 1:
            others = [f"'{names[column]}'" for column in found if column != best]
            notes.append(
                f"{protein} was measured by {len(found)} antibodies: '{names[best]}', which counts more, is taken, "
                f"{' and '.join(others)} left out"
            )
    return Panel(tuple(of), np.array(columns, np.int64), tuple(notes))


def is_control(name: str) -> bool:
    """Whether it is an isotype control: "IgG1_control_TotalSeqB", "Mouse IgG2a, κ isotype Ctrl", but not "IgD"."""
    return bool(_CONTROL.search(_without_marks(name)))


def is_antibody(name: str) -> bool:
    """Whether a feature among genes is surely an antibody: "CD3_TotalSeqB", "ADT_CD4", "CD45RA"; not "CD4", a gene."""
    return bool(_SURE.search(name)) or name in NO_GENE


def key(name: str) -> str:
    """What two spellings of a name have in common."""
    text = name.strip().translate(_GREEK).casefold()
    text = re.sub(r"(?<=\d)[\s_-]+(?=\d)", "~", text)
    text = re.sub(r"(?<=\d)\.(?=\d)", "!", text)
    return re.sub(r"[^a-z0-9~!]", "", text)


def _pair(row: Mapping[str, str]) -> tuple[str, str]:
    return row["alias"].strip(), row["protein"].strip()


@functools.cache
def _shipped_aliases() -> dict[str, str]:
    return aliases()


def _without_marks(name: str) -> str:
    """Without what makers and tools put before or behind it; the whole if nothing else would be left."""
    plain, before = name.strip(), ""
    while plain != before:
        before = plain
        plain = _BEHIND.sub("", _BEFORE.sub("", plain)) or plain
    return plain


def _parts(name: str) -> tuple[str, str]:
    """What stands outside and inside of brackets."""
    found = re.match(r"^(.*?)[\s_.-]*\((.+)\)(.*)$", name)
    return (found[1] + found[3], found[2]) if found else (name, "")


def _shorter(name: str) -> list[str]:
    """The name without its last part or two: a number of the clone ("CD4-1") or its name ("CD3_UCHT1")."""
    found = []
    for pattern in (r"^(.+)-\d$", r"^(.+?)[_. ].+$", r"^(CD\d+[a-zA-Z]{0,2})-.+$"):
        if match := re.match(pattern, name):
            found.append(match[1])
    return found


def _some(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
