"""When the next request may start."""

import email.utils
import random
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from lightning_modules.language_model.errors import Stopped

FIRST_PAUSE = 0.5  # seconds, doubled with every failure
LONGEST_PAUSE = 60.0


class Pace:
    """Starts requests evenly, and holds all of them back while the endpoint rests."""

    def __init__(self, requests_per_minute: float) -> None:
        self._interval = 60.0 / requests_per_minute
        self._next = 0.0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def wait(self) -> None:
        """Returns when it is the caller's turn.

        Raises:
            Stopped: `stop` was called; nobody waits any longer.
        """
        while not self._stopped.wait(self._pause()):
            with self._lock:
                now = time.monotonic()
                if now >= self._next:  # nobody was faster, and nobody asked for more rest
                    self._next = now + self._interval
                    return
        raise Stopped

    def rest(self, seconds: float) -> None:
        """No request starts for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def stop(self) -> None:
        """No request starts any more."""
        self._stopped.set()

    def _pause(self) -> float:
        with self._lock:
            return max(0.0, self._next - time.monotonic())


def pause(failures: int, retry_after: float | None) -> float:
    """Seconds to wait after so many failures (1, 2, ...): twice as long each time, less a random part up to a half, so
    that requests that failed together do not come back together; never less than the endpoint asked for."""
    doubled = min(FIRST_PAUSE * 2.0 ** (failures - 1), LONGEST_PAUSE)
    return max(doubled * random.uniform(0.5, 1.0), retry_after or 0.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date); None where there is none."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return None
    return max(0.0, (date - datetime.now(UTC)).total_seconds()) if date.tzinfo else None
