"""What is predicted from what: one task a file, each a factory that returns a `Task`."""

from learner_jax.tasks.proteins import proteins
from learner_jax.tasks.readmission import readmission
from learner_jax.tasks.table import table

__all__ = ["proteins", "readmission", "table"]
