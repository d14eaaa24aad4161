"""A worker gone wrong; as a process, `python -m tests.federation.mutant` is `learner join` with it."""

from __future__ import annotations

import sys

from learner_jax import trees
from learner_jax.cli.main import main
from learner_jax.engines import worker
from learner_jax.engines.program import wire_shape
from learner_jax.engines.simulator import template_rows
from learner_jax.engines.site_study import Answer, SiteStudy
from learner_jax.leaves import leaf_pieces, pack, unpack


class Scaled(SiteStudy):
    """Site h01 sends its updates of round 3 a thousandth too large."""

    def work(self, asked, data, committed):
        answer = super().work(asked, data, committed)
        if (self.name, asked.phase, asked.round) != ("h01", "train", 3):
            return answer
        _, world, weights = self._prepared()
        rows = template_rows(world)
        schema = trees.schema(wire_shape(self.parts.federated, trees.shapes(weights), rows, self.parts.local))
        leaves = {name: leaf.copy() for name, leaf in unpack(answer.data, schema).items()}
        for name, leaf in leaves.items():
            if "update" in name and leaf.dtype.kind == "f":
                leaf *= 1.001
        data = pack(leaves)
        return Answer(data, answer.schema_digest, answer.state, leaf_pieces(data, schema))


if __name__ == "__main__":
    worker.SiteStudy = Scaled
    raise SystemExit(main(["join", *sys.argv[1:]]))
