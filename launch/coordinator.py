"""`python -m launch.coordinator` is `learner coordinator`: hold the model, let sites enrol, run the rounds."""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["coordinator", *sys.argv[1:]]))
