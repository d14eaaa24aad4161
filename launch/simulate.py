"""`python -m launch.simulate` is `learner simulate`: all sites in one process."""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["simulate", *sys.argv[1:]]))
