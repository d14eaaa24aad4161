"""A hospital whose only way out is a proxy takes part like any other, to the bit: see test_parity.py, too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.federation.behind import COORDINATOR, study_of
from tests.federation.hospitals import ROOT, simulated


@pytest.mark.soak
@pytest.mark.limit(400)
def test_a_site_whose_only_route_is_a_proxy_joins_trains_and_resumes(source, tmp_path):
    tools = [name for name in ("unshare", "nsenter", "ip") if not shutil.which(name)]
    if tools or subprocess.run(["unshare", "-rn", "ip", "link", "add", "a1", "type", "veth", "peer", "name", "b1"],
                               capture_output=True).returncode:  # fmt: skip
        pytest.skip(f"no network namespaces here (missing: {tools}): not run")
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.federation.behind", str(source), str(tmp_path / "study")],
        cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, timeout=380,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = json.loads(ran.stdout.splitlines()[-1])
    print(f"\nSIGKILL of the worker behind the proxy in round {told['round']}; CONNECT {told['asked']}; "
          f"{told['carried']} bytes seen by the proxy; {told['ended']}")  # fmt: skip
    assert told["killed"] == -9
    assert set(told["ended"]) == {simulated(study_of(source)).sha256}
    assert len(told["asked"]) >= 3 and all(place.startswith(COORDINATOR) for place in told["asked"])
    (alone, words), (through, more) = told["doctor"]
    assert (alone, through) == (1, 0), (words, more)
    assert "Network is unreachable" in words and "proxy       ok" in more
