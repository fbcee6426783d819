"""Decides on second passes of recognition, and on the window of first ones, by what passes took. Pure: no clock."""

from __future__ import annotations

#: A final transcript that takes longer than the pause which ends an utterance delays the reply.
PAUSE_S = 0.6
#: There is no second pass unless it is expected to end within this time after that pause.
SECOND_PASS_WITHIN_S = 2.5
#: Cost of a second pass in first passes: until it is measured (4.4 with one recording of 6 s, two idle cores), and the
#: bounds of a measurement.
FIRST_RATIO, MIN_RATIO, MAX_RATIO = 4.4, 2.0, 8.0
#: Weight of the newest ratio in the running value.
NEWEST = 0.3
#: So many in a row change the window.
IN_A_ROW = 3
#: A short window that takes less than this leaves room for the wide one, which took 1.3 times as much with that
#: recording: well below the pause, or it would swing.
AMPLE_S = 0.65 * PAUSE_S


class SecondPassBudget:
    """Decides the window of first passes, and whether there is time for a second pass."""

    def __init__(self) -> None:
        self.is_wide = True
        self._against = 0
        self._ratio = FIRST_RATIO

    def note_first(self, took_s: float, *, was_wide: bool) -> None:
        """Note how long a first pass over short speech took, its wait in the queue included."""
        if was_wide is not self.is_wide:
            return  # began before the window changed
        is_against = took_s > PAUSE_S if self.is_wide else took_s < AMPLE_S
        self._against = self._against + 1 if is_against else 0
        if self._against == IN_A_ROW:
            self.is_wide = not self.is_wide
            self._against = 0

    def note_second(self, took_s: float, *, first_s: float) -> None:
        """Note how long both passes over the same speech took, without waits."""
        if first_s > 0:
            ratio = min(MAX_RATIO, max(MIN_RATIO, took_s / first_s))
            self._ratio += NEWEST * (ratio - self._ratio)

    def allows_second(self, first_s: float, *, elapsed_s: float, is_awaited: bool) -> bool:
        """
        Return whether a second pass would be in time.

        `first_s` is what the first pass took by itself, `elapsed_s` the time since it was requested. `is_awaited`:
        another final transcript waits in the queue.
        """
        return not is_awaited and elapsed_s + self._ratio * first_s <= PAUSE_S + SECOND_PASS_WITHIN_S
