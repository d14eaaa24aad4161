"""The pages are true: links lead somewhere, commands and names that they speak of exist, their code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def pages(root: Path) -> list[Path]:
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """Every `learner` command of a page, split into words, comments cut."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and Path(words[0]).name == "learner":
                found.append(words[1:])
    return found


def test_links_lead_to_files(root):
    dead = []
    for page in pages(root):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not re.match(r"https?:|mailto:", target) and not (page.parent / target).exists():
                dead.append(f"{page.relative_to(root)}: {target}")
    assert dead == []


def test_readme_is_short_and_opens_with_a_picture(root):
    lines = (root / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert lines[2].startswith("![") and "docs/images/learner.svg" in lines[2]


def test_make_targets_that_pages_name_exist(root):
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    text = "\n".join(page.read_text() for page in pages(root))
    named = set(re.findall(r"(?:`|^\s*)make ([a-z]+)", text, re.MULTILINE))
    assert {"demo", "test", "soak", "lint", "bench", "bundle", "help"} <= targets
    assert named and named <= targets
