"""The pace of a provider that limits calls a minute and tells nobody: found from what it took between refusals.

Pure; time comes in as an argument, in seconds. Such a limit is a bucket that refills evenly. Between two refusals it
stood at nothing, so what was taken meanwhile is what it refills. The first refusal tells less: what was taken until
then may have been saved up, a minute's calls at most.
"""

from __future__ import annotations

from collections import deque

MINUTE_S = 60.0
SPAN_S_MIN = 5.0
CALLS_MIN = 8
"""A refusal that comes sooner after another, or after fewer calls, tells nothing more."""
CALLS_MAX = 4_096
"""Who takes more in a minute is not asked how many they take."""
CAUTION = 0.97
"""So much of what was found goes: to meet a limit costs a call each time."""
LEAST_PART = 0.5
"""Of what was taken in the last minute, so much is possible at least: a limit may count whole minutes."""
NEAR = 1.25
"""Two findings that differ by less confirm each other."""
GUESSED_S, FOUND_S, FOUND_S_MAX = 10.0, 60.0, 480.0
"""After so many seconds without a refusal the pace is tried faster: a guess sooner than what was found, and that less
and less often while it is confirmed."""
FASTER = 1.05
WRONG = 3
"""What was tried faster so often without a refusal is a guess again."""


class Pace:
    """When one lane's calls went, and when it was refused for going too fast."""

    def __init__(self) -> None:
        self._went: deque[float] = deque(maxlen=CALLS_MAX)
        """The calls of the last minute that were not refused."""
        self._refused_at: float | None = None
        self._since = 0
        """Calls that went since."""
        self._before = 0.0
        """What was found at that refusal."""
        self._faster = 0
        """How often it was tried faster since."""
        self._quiet_since = 0.0
        self._patience_s = GUESSED_S

    def went(self, now: float) -> None:
        """Take note of a call that goes."""
        self._went.append(now)
        self._since += 1
        while self._went[0] <= now - MINUTE_S:
            self._went.popleft()

    def refused(self, sent_at: float, now: float) -> float | None:
        """Return how many calls a minute may go from here on; None where this refusal tells nothing new.

        Calls that were on the wire together are refused together, and tell as much as one.
        """
        before, self._quiet_since = self._refused_at, now
        if sent_at in self._went:
            self._went.remove(sent_at)
            self._since -= before is None or sent_at > before
        taken = len(self._went)
        if not CALLS_MIN <= taken < CALLS_MAX:
            return None
        if before is None:
            found = taken * MINUTE_S / (MINUTE_S + now - self._went[0])
        elif now - before < SPAN_S_MIN or self._since < CALLS_MIN:
            return None
        else:
            span_s = now - before
            found = taken if span_s > MINUTE_S else max(LEAST_PART * taken, self._since * MINUTE_S / span_s)
            confirmed = found <= NEAR * self._before and self._before <= NEAR * found
            self._patience_s = min(FOUND_S_MAX, max(FOUND_S, 2 * self._patience_s)) if confirmed else GUESSED_S
        self._refused_at, self._since, self._before, self._faster = now, 0, found, 0
        return CAUTION * found

    def faster(self, now: float) -> float:
        """Return how much faster calls may be tried now: not at all until it went well for a while."""
        if now - self._quiet_since < self._patience_s:
            return 1.0
        self._quiet_since = now
        self._faster += 1
        if self._faster >= WRONG:
            self._patience_s = GUESSED_S
        return FASTER
