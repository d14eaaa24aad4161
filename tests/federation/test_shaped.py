"""Large updates over slow lines that break: they arrive, and little of them is sent twice.

What is sent twice is what the line carried beyond a transfer that was left alone, by the interface's own counters. A
connection that is reset costs what was under way of a chunk (1 MiB) and what stood in the line's queue, so it cannot be
less than a few percent of some 20 MB: the small one here is of 64 MB.
"""

from __future__ import annotations

import pytest

from tests.federation.shaped import missing, shaped

MOST = 0.05


def transferred(tmp_path, seconds: float, **given) -> None:
    why = missing()
    if why:
        print(f"not run: {why}")
        pytest.skip(f"lines cannot be shaped here: {why}: not run")
    found = shaped("transfer", tmp_path / "study", seconds, **given)
    what = f"{given['size'] / 1e6:.0f} MB at {given['mbit']:g} Mbit/s with cuts at {given['cuts']}"
    print(f"\n{what}: {found['seconds']} s, {found['came']} bytes on the line, {found['resent']:.2%} sent again; "
          f"handed to the line again {found['handed']:.1%}, most of which never left")  # fmt: skip
    assert found["equal"], found
    assert found["resent"] < MOST, found


def test_an_update_goes_on_where_its_line_broke(tmp_path):
    transferred(tmp_path, 120, mbit=150.0, size=64_000_000, cuts=[(0.3, 0), (0.7, 0)])


@pytest.mark.soak
@pytest.mark.limit(900)
def test_200_megabytes_at_20_megabits_with_cuts(tmp_path):
    """Two connections are reset; a line is away for three seconds, and for longer than leases and TCP wait."""
    cuts = [(0.15, 0), (0.35, 3), (0.5, 0), (0.7, 40), (0.85, 0)]
    transferred(tmp_path, 800, mbit=20.0, size=200_000_000, cuts=cuts)
