"""Plays rows side by side; those of one common fault reach their moments together, and then it happens once.

While the broker of its rows is away, the other rows go on with theirs. The triggerer is stopped when no other row is
played, since a user's kill of a deferred task is heard by a triggerer only.
"""

from __future__ import annotations

import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kills.cell import Kill, Moment
from kills.plays import Play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kills.cell import Row, Verdict
    from kills.stage import Stage

#: Rows at a time; more would wait for each other's processors.
_WORKERS: Final = 10
#: Of those that reach their moments together, how many start at a time.
_STARTS: Final = 4
#: Seconds.
AWAY_SECONDS: Final = 120.0


@dataclass(kw_only=True)
class Runner:
    """Plays rows on one stage."""

    stage: Stage
    say: Callable[[str], None] = print

    def run(self, rows: Sequence[Row]) -> list[Verdict]:
        """Plays them all; the verdicts are in the order of the rows."""
        plays = {row: Play(row=row, stage=self.stage) for row in rows}
        away = [play for play in plays.values() if play.row.kill is Kill.BROKER_AWAY]
        handed = [play for play in plays.values() if play.row.kill is Kill.TRIGGERER_TERM]
        beside = [play for play in plays.values() if play not in away and play not in handed]
        together = threading.Thread(target=self._together, args=(away, self._broker_away), name="broker-away")
        together.start()
        with ThreadPoolExecutor(_WORKERS) as pool:
            for _ in pool.map(self._alone, beside):
                pass
        together.join()
        self._together(handed, self._next_triggerer)
        return [play.verdict for play in plays.values()]

    def _alone(self, play: Play) -> None:
        begin = time.monotonic()
        for step in (play.prepare, play.reach, play.kill, play.finish, play.judge):
            self._step(play, step)
        self._end(play, begin)

    def _together(self, plays: Sequence[Play], happen: Callable[[], None]) -> None:
        """Brings all rows to their moments, the short ones last, and lets something happen to them at once."""
        if not plays:
            return
        begin = time.monotonic()
        with ThreadPoolExecutor(_STARTS) as pool:
            self._all(pool, plays, lambda play: self._step(play, play.prepare))
        with ThreadPoolExecutor(len(plays)) as pool:
            short = [play for play in plays if play.row.moment is Moment.ENDING]
            self._all(pool, [play for play in plays if play not in short], lambda play: self._step(play, play.reach))
            self._all(pool, short, lambda play: self._step(play, play.reach))
            happen()
            self._all(pool, plays, lambda play: self._step(play, play.finish))
            self._all(pool, plays, lambda play: self._step(play, play.judge))
        for play in plays:
            self._end(play, begin)

    def _broker_away(self) -> None:
        self.stage.away.kill()
        time.sleep(AWAY_SECONDS)
        self.stage.away.start()

    def _next_triggerer(self) -> None:
        """As a rolling update: the next one runs when the old one is stopped."""
        (old,) = self.stage.airflow.triggerer_names
        self.stage.airflow.add_triggerer()
        self.stage.airflow.end(old)

    @staticmethod
    def _all(pool: ThreadPoolExecutor, plays: Iterable[Play], do: Callable[[Play], None]) -> None:
        for _ in pool.map(do, plays):
            pass

    @staticmethod
    def _step(play: Play, step: Callable[[], None]) -> None:
        if play.verdict.problems:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001  whatever it is, the other rows go on and this one has failed
            play.verdict.problems.append(f"{getattr(step, '__name__', 'step')}: {type(error).__name__}: {error}"[:300])
            play.verdict.log = traceback.format_exc()

    def _end(self, play: Play, begin: float) -> None:
        verdict, row = play.verdict, play.row
        verdict.seconds = time.monotonic() - begin
        if not verdict.holds:
            self._tidy_up(play)
        self.say(
            f"{'holds' if verdict.holds else 'WRONG'} {verdict.seconds:5.0f} s  {row.name}: "
            f"{verdict.state}, {verdict.tries} tries; {verdict.pods}; {verdict.lines}"
        )
        for problem in verdict.problems:
            self.say(f"       {problem}")

    @staticmethod
    def _tidy_up(play: Play) -> None:
        try:
            play.tidy_up()
        except Exception as error:  # noqa: BLE001  the row has failed already, and says why
            play.verdict.log += f"\n--- not tidied up: {error!r}"
