"""Flower as an arm of `benchmarks.simulator_peers`: its simulation on Ray, a site a virtual SuperNode.

    python -m venv peers/flower
    peers/flower/bin/pip install "torch==2.13.0+cpu" "flwr[simulation]==1.42.0" ray==2.55.1 numpy

flower      one actor of one thread does all sites
flower_2    two actors

A job: `run_simulation` of a `ServerApp` with Flower's `FedAvg` and a `ClientApp` that trains with PyTorch as in
`peer_torch`; weights travel as a state dictionary, as in Flower's examples. A round is timed at the strategy, from
`configure_train` to the end of `aggregate_train`; there is no evaluation. An actor maps the rows from disk and keeps
its network. Beside the actors Ray runs its own processes, whose CPU time and memory count. Telemetry is off, and so is
what is logged below a warning.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, peer_work

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(common.ROOT)}

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict  # pyright: ignore[reportMissingImports]
from flwr.clientapp import ClientApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp import ServerApp  # pyright: ignore[reportMissingImports]
from flwr.serverapp.strategy import FedAvg  # pyright: ignore[reportMissingImports]
from flwr.simulation import run_simulation  # pyright: ignore[reportMissingImports]

from benchmarks import peer_torch

laps = peer_work.Laps()


class Timed(FedAvg):
    """FedAvg of all sites that keeps the first round's weights and tells when rounds begin and end."""

    first: list[np.ndarray] | None = None

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        """A round begins."""
        laps.begin()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """A round ends.

        Raises:
          RuntimeError: a site failed.
        """
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        laps.end()
        failed = [reply.error.reason for reply in replies if reply.has_error()]
        if failed or arrays is None:
            raise RuntimeError(f"{len(failed)} sites failed: {failed[:1]}")
        if self.first is None:
            self.first = [leaf.numpy().T.copy() for leaf in arrays.to_torch_state_dict().values()]
        return arrays, metrics


def job_of(file: Path, cores: int) -> peer_work.Arm:
    """Jobs on so many actors."""
    work = peer_work.read(file)
    folder = Path(tempfile.mkdtemp(prefix="flower-", dir=file.parent))
    peer_work.spread(folder, work)
    count, place = len(work.steps), str(folder)
    start, client = peer_torch.network(work.start).state_dict(), ClientApp()
    logging.getLogger("flwr").setLevel(logging.WARNING)

    @client.train()
    def train(message: Any, context: Any) -> Any:
        from benchmarks import peer_torch

        trainer = peer_torch.trainer(place)
        trainer.model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        rows = trainer.train(int(context.node_config["partition-id"]))
        reply = {"arrays": ArrayRecord(trainer.model.state_dict()), "metrics": MetricRecord({"num-examples": rows})}
        return Message(content=RecordDict(reply), reply_to=message)

    def run(rounds: int) -> tuple[list[np.ndarray], list[dict[str, float]]]:
        laps.rounds.clear()
        strategy, server = Timed(fraction_evaluate=0.0, min_train_nodes=count, min_available_nodes=count), ServerApp()

        @server.main()
        def main(grid: Any, context: Any) -> None:
            strategy.start(grid=grid, initial_arrays=ArrayRecord(start), num_rounds=rounds)

        ray = {"num_cpus": cores, "include_dashboard": False, "log_to_driver": False}
        run_simulation(
            server, client, count, "ray", {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": ray}
        )
        assert strategy.first is not None
        return strategy.first, list(laps.rounds)

    return peer_work.Job(run)


if __name__ == "__main__":
    peer_work.main(
        {"flower": lambda file: job_of(file, 1), "flower_2": lambda file: job_of(file, 2)},
        ["flwr", "ray", "torch", "numpy"],
        laps,
    )
