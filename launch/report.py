"""`python -m launch.report` is `learner report`: the table, the sentences and the page of a finished run."""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["report", *sys.argv[1:]]))
