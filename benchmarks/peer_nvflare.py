"""NVFlare as an arm of `benchmarks.simulator_peers`: its simulator, a site a process of its own.

    python -m venv peers/nvflare && peers/nvflare/bin/pip install "torch==2.13.0+cpu" nvflare==2.9.0 numpy

nvflare    as many simulator threads as sites, so every site's process stays: SITES of them at most

Where there are fewer threads than sites, NVFlare's simulator ends a process and starts another, which imports all
anew, whenever one site's turn follows another's: seconds a site. Works of more sites are therefore refused here.

A job: `FedJob` with NVFlare's `FedAvg` and an `Executor` that trains with PyTorch as in `peer_torch`. A round is timed
at the controller, from drawing its sites until its model would be saved, which is left out. What waits in NVFlare is
set to look every PACE_S; that is still most of a short round.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.executor import Executor  # pyright: ignore[reportMissingImports]
from nvflare.app_common.abstract.fl_model import FLModel  # pyright: ignore[reportMissingImports]
from nvflare.app_common.utils.fl_model_utils import FLModelUtils  # pyright: ignore[reportMissingImports]
from nvflare.app_common.workflows.fedavg import FedAvg  # pyright: ignore[reportMissingImports]
from nvflare.job_config.api import FedJob  # pyright: ignore[reportMissingImports]

from benchmarks import common, peer_torch, peer_work

SITES = 10
PACE_S = 0.05
"""How often a site asks for work and the controller looks whether all is done; NVFlare's own are 2 s and 0.5 s."""


class Timed(FedAvg):
    """FedAvg that begins with the work's weights, and writes its rounds and the first round's weights to a folder.

    Args:
      folder: of `peer_work.spread`; results go there as well.
      count: sites.
      rounds: of the job.
    """

    def __init__(self, folder: str, count: int, rounds: int):
        super().__init__(num_clients=count, num_rounds=rounds, persistor_id="", task_check_period=PACE_S)
        self.folder, self.count, self.rounds = folder, count, rounds  # a job's file has them by these names
        self._laps = peer_work.Laps()

    def load_model(self) -> Any:
        """The start."""
        return FLModel(params={f"leaf_{k}": leaf for k, leaf in enumerate(peer_work.mapped(Path(self.folder)).start)})

    def sample_clients(self, num_clients: int | None = None) -> Any:
        """A round begins."""
        self._laps.begin()
        return super().sample_clients(num_clients)

    def save_model(self, model: Any) -> None:
        """A round ends."""
        self._laps.end()
        folder = Path(self.folder)
        if len(self._laps.rounds) == 1:
            np.savez(folder / "first.npz", **model.params)
        (folder / "told.json").write_text(json.dumps({"rounds": self._laps.rounds, "peak": self._laps.peak}))


class Site(Executor):
    """A site in its own process.

    Args:
      folder: of `peer_work.spread`.
    """

    def __init__(self, folder: str):
        super().__init__()
        self.folder = folder

    def execute(self, task_name: str, shareable: Any, fl_ctx: Any, abort_signal: Any) -> Any:
        """One site's training."""
        trainer, given = peer_torch.trainer(self.folder), FLModelUtils.from_shareable(shareable)
        peer_torch.put(trainer.model, [given.params[f"leaf_{k}"] for k in range(len(given.params))])
        rows = trainer.train(int(fl_ctx.get_identity_name().rpartition("-")[2]) - 1)
        leaves = {f"leaf_{k}": leaf for k, leaf in enumerate(peer_torch.taken(trainer.model))}
        return FLModelUtils.to_shareable(FLModel(params=leaves, meta={"NUM_STEPS_CURRENT_ROUND": rows}))


def job_of(file: Path) -> peer_work.Arm:
    """Jobs.

    Raises:
      ValueError: too many sites.
    """
    from benchmarks import peer_nvflare  # under its own name: a job's file names classes by their modules

    work = peer_work.read(file)
    count = len(work.steps)
    if count > SITES:
        raise ValueError(
            f"expected {SITES} sites at most, got {count}: NVFlare's simulator needs a process for each, or starts one "
            "anew at each turn, seconds a site"
        )
    os.environ["PYTHONPATH"] = str(common.ROOT)

    def run(rounds: int) -> tuple[list[np.ndarray], list[dict[str, float]]]:
        folder = Path(tempfile.mkdtemp(prefix="nvflare-", dir=file.parent))
        peer_work.spread(folder, work)
        job = FedJob(name="peer")
        job.to_server(peer_nvflare.Timed(str(folder), count, rounds))
        job.to_server({"server": {"task_request_interval": PACE_S}})
        job.to_clients(peer_nvflare.Site(str(folder)))
        job.simulator_run(str(folder / "workspace"), n_clients=count, threads=count, log_config="error")
        told = json.loads((folder / "told.json").read_text())
        laps.peak = max(laps.peak, told["peak"])
        with np.load(folder / "first.npz", allow_pickle=False) as parts:
            return [parts[f"leaf_{k}"] for k in range(len(work.start))], told["rounds"]

    return peer_work.Job(run)


laps = peer_work.Laps()

if __name__ == "__main__":
    peer_work.main({"nvflare": job_of}, ["nvflare", "torch", "numpy"], laps)
