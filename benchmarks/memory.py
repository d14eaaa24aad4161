"""How much memory a coordinator needs, by the size of the model and the number of sites.

    python -m benchmarks.memory                 one JSON line: a model of 1 GiB; 2, 4 and 8 sites (40 GB of disk)
    python -m benchmarks.memory --quick         a model of 32 MiB: does it run
    python -m benchmarks.memory --mib 256 --sites 2,8 --out benchmarks/results/memory.jsonl

Real `learner coordinator` processes, over CURVE. The sites are senders without jax that answer with bytes from a file,
so that all fit on one machine; what the coordinator validates, spools, adds up and saves is as large as in a study.
Its peak (VmHWM) is compared with that of the same study with a model of nearly nothing: "idle". Goals: at most idle and
3 x the model, and the same within 5 % for 2 and 8 sites.
"""

from __future__ import annotations

import argparse
import json
import mmap
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.forecast import peak

WIDTH = 8192


# ---- a sender: a site without jax ------------------------------------------------------------------------------------


def send(code: Path, name: str, folder: Path, answers: Path) -> None:
    """Takes part in a study as `learner join` does, with answers from files."""
    from learner_jax.network.drive import SiteDrive, SiteHandlers
    from learner_jax.network.enrol import membership
    from learner_jax.network.keys import load_or_make_keys
    from learner_jax.network.links import SiteLink
    from learner_jax.protocol import commands as c
    from learner_jax.protocol.site import SiteKeeper

    folder.mkdir(parents=True)
    member = membership(code.read_text().strip(), name, folder)
    schemas = json.loads((answers / "schemas.json").read_text())

    def work(asked: c.Work) -> None:
        phase = asked.open.phase + ("0" if asked.open.round == 0 else "")
        with (answers / phase).open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if asked.open.phase == "train":  # each site's bytes are its own
            data[0] = sum(name.encode()) % 256
        drive.post(c.Worked(asked.open.round, asked.open.phase, data, schemas[phase]))  # type: ignore[arg-type]

    def nothing(*_: Any) -> None: ...

    with SiteLink(member.address, member.server_public, load_or_make_keys(folder / "keys.json")) as link:
        handlers = SiteHandlers(lambda asked: c.Approved(asked.manifest_digest), work, nothing, nothing, nothing)
        drive = SiteDrive(link, SiteKeeper(member.study, name), handlers)
        drive.run()


# ---- a study ---------------------------------------------------------------------------------------------------------


def prepare(folder: Path, layers: int, width: int, rounds: int) -> tuple[Path, int]:
    """Writes a study's config, and what its sites answer.

    Returns:
      The config's path, and the model's bytes.
    """
    import jax
    import numpy as np

    from learner_jax import trees
    from learner_jax.build import build
    from learner_jax.data.sites import encode_sites
    from learner_jax.engines.program import wire_shape
    from learner_jax.engines.site_study import READY, SUMMARY
    from learner_jax.engines.sources import frames_of
    from learner_jax.leaves import Schema, schema_digest, schema_of
    from learner_jax.specs import Data, Spec, Study, check

    hidden = (width,) * layers
    study = check(
        Study(
            name="memory", task=Spec("tasks", "readmission", {"codes": 8}), rounds=rounds, references=(),
            model=Spec("models", "mlp", {"hidden": hidden}), data=Data(source="diabetes130"),
        )
    )  # fmt: skip
    parts = build(study)
    checklist = parts.task.checklist
    assert checklist is not None
    frames = dict(list(frames_of(study).items())[:2])
    fitted = encode_sites(checklist, frames)[0]
    rows = checklist.template(fitted)
    template = jax.eval_shape(parts.init_weights, rows)
    wire = wire_shape(parts.federated, template, rows, parts.local)
    look = wire_shape(parts.federated, template, rows, parts.local, look=True)
    measured = checklist.measure(next(iter(frames.values())))
    answers = folder / "answers"
    answers.mkdir(parents=True)
    schemas: dict[str, str] = {}

    def write(name: str, schema: Schema, data: bytes | None = None) -> None:
        schemas[name] = schema_digest(schema)
        with (answers / name).open("wb") as file:
            if data is not None:
                file.write(data)
                return
            for spec in schema:
                whole, block = spec.size // np.dtype(spec.dtype).itemsize, 1 << 20
                small = np.ones(block, spec.dtype) if whole < block else np.full(block, 1e-6, spec.dtype)
                for start in range(0, whole, block):
                    file.write(small[: min(block, whole - start)].tobytes())

    write("statistics0", schema_of(measured), b"".join(measured[name].tobytes() for name in sorted(measured)))
    write("look0", READY, np.ones(1, np.int32).tobytes())
    write("train", trees.schema(wire))
    write("look", trees.schema(look))
    write("finish", SUMMARY, b"{}".ljust(SUMMARY[0].size))
    (answers / "schemas.json").write_text(json.dumps(schemas))
    config = folder / "config.py"
    config.write_text(
        f"from learner_jax.specs import Study\n\n\ndef study():\n    return Study.from_json({study.to_json()!r})\n"
    )
    return config, sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(template))


def run(folder: Path, config: Path, sites: int) -> dict[str, Any]:
    """One federation: the coordinator's peak in bytes, and seconds."""
    names = [f"s{number:02d}" for number in range(sites)]
    workdir, begun = folder / f"run{sites}", time.perf_counter()
    command = [sys.executable, "-m", "launch.coordinator", f"--config={config}", f"--workdir={workdir}", "--json",
               f"--sites={','.join(names)}", "--noreport"]  # fmt: skip
    words = folder / f"coordinator{sites}.txt"
    senders: list[subprocess.Popen[bytes]] = []
    with words.open("w") as out:
        coordinator = subprocess.Popen(command, cwd=common.ROOT, stdout=out, stderr=subprocess.STDOUT)
        try:
            for name in names:
                code = workdir / "join" / f"{name}.code"
                while not code.exists():
                    if coordinator.poll() is not None:
                        raise SystemExit(words.read_text())
                    time.sleep(0.05)
                about = [str(code), name, str(workdir / "senders" / name), str(folder / "answers")]
                more = [sys.executable, "-m", "benchmarks.memory", "--send", *about]
                senders.append(subprocess.Popen(more, cwd=common.ROOT))
            most = 0
            while coordinator.poll() is None:
                most = max(most, peak(coordinator.pid))
                time.sleep(0.02)
        finally:
            for process in (coordinator, *senders):
                process.kill()
                process.wait()
    if coordinator.returncode:
        raise SystemExit(words.read_text()[-3000:])
    shutil.rmtree(workdir)
    return {"sites": sites, "peak": most, "seconds": common.rounded(time.perf_counter() - begun)}


def main() -> None:
    """Measures, and prints one JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the model, MiB (1024)")
    parser.add_argument("--sites", default="2,4,8", help="numbers of sites, by commas (2,4,8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each study (3)")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each number of sites (1)")
    parser.add_argument("--quick", action="store_true", help="a model of 32 MiB")
    parser.add_argument("--out", type=Path, help="a file that the line is added to")
    parser.add_argument("--folder", type=Path, help="where to put some gigabytes for a while")
    parser.add_argument("--send", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send:
        code, name, folder, answers = given.send
        send(Path(code), name, Path(folder), Path(answers))
        return
    # layers of 8192 x 8192 float32, 256 MiB each; narrower ones where the model is smaller
    size = 32 if given.quick else given.mib
    layers = 1 + max(1, size // 256)
    width = min(WIDTH, round((size * 2**20 / 4 / (layers - 1)) ** 0.5))
    rows = []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        idle_config, _ = prepare(Path(folder) / "idle", 2, 8, given.rounds)
        idle = run(Path(folder) / "idle", idle_config, 2)["peak"]
        config, model = prepare(Path(folder) / "large", layers, width, given.rounds)
        for _ in range(given.repeats):
            for sites in map(int, given.sites.split(",")):
                found = run(Path(folder) / "large", config, sites)
                rows.append({**found, "models": common.rounded((found["peak"] - idle) / model)})
                print(f"{sites} sites: idle + {rows[-1]['models']} x the model", file=sys.stderr)
    peaks = [row["peak"] for row in rows]
    line = {
        "benchmark": "memory", "model": model, "rounds": given.rounds, "idle": idle, "runs": rows, "n": given.repeats,
        "goal": {"models": 3.0, "spread": 0.05}, "models": max(row["models"] for row in rows),
        "spread": common.rounded((max(peaks) - min(peaks)) / min(peaks)), "machine": common.machine(),
        "versions": common.versions("jax", "jaxlib", "pyzmq", "orbax-checkpoint", "numpy"),
    }  # fmt: skip
    common.emit(line, given.out)


if __name__ == "__main__":
    main()
