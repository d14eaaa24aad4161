"""`python -m sites.worker --join_file=PATH --data=FILE` is `learner join`: take part with this site's data.

The join code is asked for where no file is named; it never stands on the command line.
"""

import sys

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main(["join", *sys.argv[1:]]))
