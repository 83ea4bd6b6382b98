"""Write what happens in a job to a file, one JSON object per line."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from forclip.progress.job import Progress


class EventLog:
    """A file of JSON lines, which a job that continues another one appends to.

    Each line has the time (UTC) and the name of an event. `stage`, `progress` and `stage_end` have what `Progress` has.
    A log that can't be written any more ends; the job goes on.
    """

    def __init__(self, file: Path, say: Callable[[str], None] = lambda message: None) -> None:
        """Open a file. say: is called if it can't be written later. Raises ValueError if it can't be opened."""
        self._lock, self._say, self._name = threading.Lock(), say, file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("a", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"--log {file}: cannot be written: {error.strerror}") from None

    def write(self, event: str, **values: Any) -> None:
        """Append an event. values: plain JSON values; what is None is left out."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        kept = {key: value for key, value in values.items() if value is not None}
        line = json.dumps({"time": time, "event": event, **kept}, ensure_ascii=True) + "\n"
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(line)
                self._file.flush()
            except OSError as error:
                self._say(f"{self._name}: the log ends here: {error.strerror}")
                self._close()

    def start(self, progress: Progress) -> None:
        """A stage starts."""
        self.write("stage", stage=progress.stage, total=progress.total)

    def change(self, progress: Progress) -> None:
        """Not logged: ticks are."""

    def tick(self, progress: Progress) -> None:
        """Some seconds have passed."""
        self.write("progress", **_values(progress))

    def end(self, progress: Progress, completed: bool) -> None:
        """A stage ends."""
        ended = "completed" if progress.done >= progress.total else "ended early" if completed else "stopped"
        self.write("stage_end", **_values(progress), ended=ended)

    def close(self) -> None:
        """The file stays open: a command may have several jobs."""

    def finish(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        with suppress(OSError):  # what was written is all that there is
            self._file.close()


def _values(progress: Progress) -> dict[str, Any]:
    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 3)

    return {
        "stage": progress.stage,
        "done": progress.done,
        "total": progress.total,
        "skipped": progress.skipped,
        "seconds": rounded(progress.seconds),
        "rate": rounded(progress.rate),
        "seconds_left": rounded(progress.seconds_left),
        "job_seconds_left": rounded(progress.job_seconds_left),
    }
