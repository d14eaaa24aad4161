"""Sites that come while a study runs: each takes part from the round on at which it was ready.

Before a round's cohort is drawn, those of the roster that are there and take no part yet are asked to prepare, in a
phase of its own ("enter"): they get what was fitted from the first sites' sums, and encode their table by it. Who has
answered when the phase closes is in the study from this round on, which the journal's row of the closed phase says; so
a coordinator that is started again draws the same cohorts. Nobody is needed for it: who leaves meanwhile is asked
again before the next round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from learner_jax.errors import DataError
from learner_jax.leaves import site_ids
from learner_jax.protocol.messages import PHASES
from learner_jax.storage.journal import Journal

ENTER = "enter"


class Newcomers:
    """Who takes part, round by round.

    Args:
      journal: the study's.
      names: of the sites of the beginning.
      there: () -> the sites that are on the roster and can be asked.
      ask: (round, sites) -> those of them that are ready.
      said: told in a line of who takes part from now on, and of who cannot.
    """

    def __init__(
        self,
        journal: Journal,
        names: Sequence[str],
        there: Callable[[], Sequence[str]],
        ask: Callable[[int, Sequence[str]], Sequence[str]],
        said: Callable[[str], None],
    ):
        self._names, self._there, self._ask, self._said = tuple(names), there, ask, said
        self._entered: Mapping[int, Sequence[str]] = {
            number: [site for site, _ in row.accepted]
            for (number, phase), row in journal.closed().items()
            if phase == ENTER
        }
        opened = journal.opened()
        self._reached = max(((row.round, PHASES.index(row.phase)) for row in opened), default=(0, 0))
        self._asked = {row.round: row.cohort for row in opened if row.phase == ENTER}
        self._refused: set[str] = set()

    def at(self, number: int) -> tuple[str, ...]:
        """The sites of a round, in the order in which they came; ask it of one round after the other."""
        if number in self._entered:
            new = self._entered[number]
        elif (number, PHASES.index(ENTER)) < self._reached:
            new = ()  # its sites were asked already, without anybody new
        else:
            new = self._ready(number)
        self._names += tuple(new)
        return self._names

    def _ready(self, number: int) -> Sequence[str]:
        """Asks who is there and new; the same ones where an earlier process had begun to ask."""
        come = self._asked.get(number) or self._come()
        new = self._ask(number, come) if come else ()
        for site in new:
            self._said(f"{site} takes part from round {number} on")
        return new

    def _come(self) -> tuple[str, ...]:
        """Who is there and takes no part yet; but nobody whose id is another's."""
        come: tuple[str, ...] = ()
        for site in sorted({*self._there()} - {*self._names} - self._refused):
            try:
                site_ids((*self._names, *come, site))
                come += (site,)
            except DataError as error:
                self._refused.add(site)
                self._said(f"{site} cannot take part: {error}")
        return come
