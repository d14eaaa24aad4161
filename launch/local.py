"""`python -m launch.local` is `learner local`: a coordinator and its sites as processes on this machine."""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["local", *sys.argv[1:]]))
