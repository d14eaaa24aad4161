"""`python -m launch.compare` is `learner compare`: two runs side by side."""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["compare", *sys.argv[1:]]))
