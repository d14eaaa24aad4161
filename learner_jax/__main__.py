"""`python -m learner_jax` is `learner`."""

from learner_jax.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
