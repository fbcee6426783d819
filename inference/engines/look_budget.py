"""What a recogniser may still spend on an utterance, judged by what it has spent. Pure: fed with durations."""

from __future__ import annotations

#: A final transcript that takes longer than the pause which ends an utterance keeps the person waiting.
PAUSE_S = 0.6
#: With a second look it is there so long after that pause, or there is no second look.
SECOND_LOOK_WITHIN_S = 2.5
#: Cost of a second look in first looks: until it is measured (4.4 with one recording of 6 s, two idle cores), and in
#: which bounds a measurement counts.
FIRST_RATIO, LEAST_RATIO, LARGEST_RATIO = 4.4, 2.0, 8.0
#: Weight of the newest ratio in the running value.
NEWEST = 0.3
#: So many in a row change the window.
IN_A_ROW = 3
#: A short window that takes less than this leaves room for the wide one, which took 1.3 times as much with that
#: recording: well below the pause, or it would swing.
AMPLE_S = 0.65 * PAUSE_S


class LookBudget:
    """Decides the window of first looks, and whether there is time for a second."""

    def __init__(self) -> None:
        self.is_wide = True
        self._against = 0
        self._ratio = FIRST_RATIO

    def note_first(self, took_s: float, *, was_wide: bool) -> None:
        """Note a first look at short speech, its wait for its turn included."""
        if was_wide is not self.is_wide:
            return  # began before the window changed
        is_against = took_s > PAUSE_S if self.is_wide else took_s < AMPLE_S
        self._against = self._against + 1 if is_against else 0
        if self._against == IN_A_ROW:
            self.is_wide = not self.is_wide
            self._against = 0

    def note_second(self, took_s: float, *, first_s: float) -> None:
        """Note what a second look took, and the first look at the same speech; neither with a wait."""
        if first_s > 0:
            ratio = min(LARGEST_RATIO, max(LEAST_RATIO, took_s / first_s))
            self._ratio += NEWEST * (ratio - self._ratio)

    def allows_second(self, first_s: float, *, elapsed_s: float, is_awaited: bool) -> bool:
        """
        Say whether a second look is in time.

        `first_s` is what the first took alone, `elapsed_s` the time since it was asked for. `is_awaited`: somebody
        else's speech waits for its turn.
        """
        return not is_awaited and elapsed_s + self._ratio * first_s <= PAUSE_S + SECOND_LOOK_WITHIN_S
