"""PyTorch loops as arms of `benchmarks.simulator_peers`, and what the peers that train with PyTorch share.

    python -m venv peers/torch && peers/torch/bin/pip install "torch==2.13.0+cpu" numpy

torch_centralised    one model over every batch of the round in a row, as if all rows lay in one place
torch                FedAvg by a plain loop: each site from the same weights, averaged by rows
torch_optim          the same with `torch.optim` and its defaults, as one writes it first

A network of `torch.nn`, autograd, no `torch.compile`. The first two, and the peers that train by `descend`, take
`index_select`, `torch.autograd.grad`, SGD's update written out and Adam fused. For a small network that saves a third
of a step of SGD; for W1's it saves nothing, and `torch_optim` may be the faster. Batches are row numbers that lie
ready; rows are taken from the table of all sites.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from benchmarks import peer_work

torch.set_num_threads(1)


class Convolutions(torch.nn.Module):
    """Of `loops.convolutions`; rows stay [b, height, width, channels] in memory, which PyTorch is as quick with."""

    def __init__(self, start: Sequence[np.ndarray]):
        super().__init__()
        self.convolutions = torch.nn.ModuleList(torch.nn.Conv2d(*leaf.shape[2:], 3) for leaf in start[:4:2])
        self.dense = torch.nn.ModuleList(torch.nn.Linear(*leaf.shape) for leaf in start[4::2])

    def forward(self, x: Any) -> Any:
        x = x.permute(0, 3, 1, 2)
        for layer in self.convolutions:
            x = torch.relu(layer(x))
        x = torch.nn.functional.max_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return self.dense[1](torch.relu(self.dense[0](x)))


class Block(torch.nn.Module):
    """One of `loops.transformer`, with heads of 64."""

    def __init__(self, width: int):
        super().__init__()
        norm, dense = functools.partial(torch.nn.LayerNorm, width, eps=1e-6), torch.nn.Linear
        self.before, self.asked, self.told = norm(), dense(width, 3 * width), dense(width, width)
        self.after, self.up, self.down = norm(), dense(width, 4 * width), dense(4 * width, width)

    def forward(self, x: Any) -> Any:
        rows, length, width = x.shape
        query, key, value = self.asked(self.before(x)).view(rows, length, 3, width // 64, 64).permute(2, 0, 3, 1, 4)
        told = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + self.told(told.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(torch.nn.functional.gelu(self.up(self.after(x)), approximate="tanh"))


class Transformer(torch.nn.Module):
    """Of `loops.transformer`."""

    def __init__(self, start: Sequence[np.ndarray]):
        super().__init__()
        width = start[0].shape[1]
        self.words, self.places = (torch.nn.Embedding(*leaf.shape) for leaf in start[:2])
        self.blocks = torch.nn.ModuleList(Block(width) for _ in range((len(start) - 6) // 12))
        self.last, self.out = torch.nn.LayerNorm(width, eps=1e-6), torch.nn.Linear(*start[-2].shape)

    def forward(self, x: Any) -> Any:
        x = self.words(x) + self.places.weight
        for block in self.blocks:
            x = block(x)
        return self.out(self.last(x).mean(1))


def network(start: Sequence[np.ndarray], kind: str = "perceptron") -> Any:
    """A network of `benchmarks.networks` with weights of `peer_work.Work.start`."""
    model: Any
    if kind == "perceptron":
        layers: list[Any] = []
        for kernel in start[::2]:
            layers += [torch.nn.Linear(*kernel.shape), torch.nn.ReLU()]
        model = torch.nn.Sequential(*layers[:-1])
    else:
        model = {"convolutions": Convolutions, "transformer": Transformer}[kind](start)
    model.outputs = len(start[-1])
    put(model, start)
    return model


def put(model: Any, leaves: Sequence[np.ndarray]) -> None:
    """Sets the weights: float32[i, o] and float32[o] of each dense layer, float32[3, 3, i, o] of a convolution."""
    with torch.no_grad():
        for (parameter, there, _), leaf in zip(_axes(model), leaves, strict=True):
            parameter.copy_(torch.from_numpy(np.array(leaf.transpose(there))))


def taken(model: Any, values: Sequence[Any] | None = None) -> list[np.ndarray]:
    """The weights, as `put` takes them.

    Args:
      model: of `network`.
      values: tensors in place of its parameters.
    """
    axes = _axes(model)
    values = [parameter.detach() for parameter, _, _ in axes] if values is None else values
    return [value.numpy().transpose(back).copy() for value, (_, _, back) in zip(values, axes, strict=True)]


def _axes(model: Any) -> list[tuple[Any, tuple[int, ...], tuple[int, ...]]]:
    """Each parameter, and the order of a leaf's axes as PyTorch has it, and back."""
    found = []
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            there = back = tuple(range(parameter.ndim))
            if isinstance(module, torch.nn.Linear) and parameter.ndim == 2:
                there = back = (1, 0)
            elif parameter.ndim == 4:
                there, back = (3, 2, 0, 1), (2, 3, 1, 0)
            found.append((parameter, there, back))
    return found


def loss_of(outputs: int) -> Callable[[Any, Any], Any]:
    """(logits float32[b, outputs], y [b]) -> the mean over the rows: of classes, or of yes and no with one output."""
    if outputs == 1:
        return lambda logits, y: torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], y)
    return torch.nn.functional.cross_entropy


def table(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """The rows as tensors, x in place; classes as PyTorch wants them, int64[M]."""
    return torch.from_numpy(x), torch.from_numpy(y.astype(np.int64) if y.dtype == np.int32 else y)


def optimizer(name: str, parameters: Any, lr: float) -> Any:
    """ "sgd" or "adam" of `torch.optim`, with its defaults, which are those of `peer_work.Work`; Adam fused."""
    if name == "adam":
        return torch.optim.Adam(parameters, lr=lr, fused=True)
    return torch.optim.SGD(parameters, lr=lr)


def descend(model: Any, x: Any, y: Any, batches: Sequence[Any], name: str, lr: float) -> None:
    """Trains in place from a fresh optimizer.

    Args:
      model: of `network`.
      x, y: of `table`.
      batches: int64[b] tensors of rows.
      name: of the optimizer.
      lr: learning rate.
    """
    parameters, loss = list(model.parameters()), loss_of(model.outputs)
    rule = optimizer(name, parameters, lr) if name != "sgd" else None
    for rows in batches:
        grads = torch.autograd.grad(loss(model(x.index_select(0, rows)), y.index_select(0, rows)), parameters)
        if rule is None:
            with torch.no_grad():
                for parameter, grad in zip(parameters, grads, strict=True):
                    parameter.sub_(grad, alpha=lr)
        else:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
            rule.step()


def descend_first(model: Any, x: Any, y: Any, batches: Sequence[Any], name: str, lr: float) -> None:
    """`descend` as one writes it first."""
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name](model.parameters(), lr=lr)
    loss = loss_of(model.outputs)
    for rows in batches:
        rule.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        rule.step()


class Trainer:
    """Any site of the work, for a process that a peer started; its rows are mapped.

    Args:
      folder: of `peer_work.spread`.
    """

    def __init__(self, folder: str):
        self._work = work = peer_work.mapped(Path(folder))
        self._x, self._y = torch.from_numpy(work.x), torch.from_numpy(work.y)
        self._classes = work.y.dtype == np.int32
        self.model = network(work.start, work.network)

    def train(self, site: int) -> int:
        """Trains `model` on a site's batches; the site's rows."""
        batches = [torch.from_numpy(rows) for rows in peer_work.batches(self._work, site)]
        places = torch.cat(batches)
        x, y = self._x[places], self._y[places]
        parts = torch.arange(len(places)).split([len(rows) for rows in batches])
        descend(self.model, x, y.long() if self._classes else y, parts, self._work.optimizer, self._work.lr)
        return len(places)


@functools.cache
def trainer(folder: str) -> Trainer:
    """This process's."""
    return Trainer(folder)


def _sites(work: peer_work.Work) -> list[list[Any]]:
    return [[torch.from_numpy(rows) for rows in peer_work.batches(work, s)] for s in range(len(work.steps))]


def centralised(file: Path) -> peer_work.Arm:
    """One model over all batches."""
    work = peer_work.read(file)
    model, (x, y) = network(work.start, work.network), table(work.x, work.y)
    batches = [rows for site in _sites(work) for rows in site]

    def run() -> list[np.ndarray]:
        put(model, work.start)
        descend(model, x, y, batches, work.optimizer, work.lr)
        return taken(model)

    return run


def sequential(file: Path, descend: Callable[..., None] = descend) -> peer_work.Arm:
    """Site after site."""
    work = peer_work.read(file)
    model, (x, y), sites = network(work.start, work.network), table(work.x, work.y), _sites(work)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    shares = (peer_work.row_counts(work) / peer_work.row_counts(work).sum()).tolist()

    def run() -> list[np.ndarray]:
        total = [torch.zeros_like(leaf) for leaf in start]
        for share, batches in zip(shares, sites, strict=True):
            with torch.no_grad():
                for parameter, leaf in zip(model.parameters(), start, strict=True):
                    parameter.copy_(leaf)
            descend(model, x, y, batches, work.optimizer, work.lr)
            with torch.no_grad():
                for sum_, parameter in zip(total, model.parameters(), strict=True):
                    sum_.add_(parameter, alpha=share)
        return taken(model, total)

    return run


if __name__ == "__main__":
    peer_work.main(
        {
            "torch_centralised": centralised,
            "torch": sequential,
            "torch_optim": lambda file: sequential(file, descend_first),
        },
        ["torch", "numpy"],
    )
