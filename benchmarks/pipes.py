"""The floor under any isolation by processes: a bare pipe round trip between two Pythons that do nothing else.

No framing, no codec, no limits. What a blocking round trip costs is mostly two wake-ups; spinning ends save those.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from .echo import PAUSE, REPLY_BYTES, REQUEST_BYTES
from .measure import Contender

_ECHO = Path(__file__).with_name("echo.py")
_REQUEST = bytes(REQUEST_BYTES)
_PAUSE = PAUSE.ljust(REQUEST_BYTES, b"\0")
# The child ends at end of file, in milliseconds; more only when something is badly wrong.
_END_S = 10.0


class Echo:
    """An echo child; `round_trip` is one message there and one back. A context manager."""

    def __init__(self, mode: Literal["spin", "block"]) -> None:
        child_in, self._requests = os.pipe()
        self._replies, child_out = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_ECHO), mode, str(child_in), str(child_out)],
                stdin=subprocess.DEVNULL,
                pass_fds=(child_in, child_out),
                start_new_session=True,  # Ctrl-C is for us: end of file ends it
            )
        except BaseException:
            os.close(self._requests)
            os.close(self._replies)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        self._spins = mode == "spin"
        os.set_blocking(self._replies, not self._spins)
        self.round_trip: Callable[[], bytes] = self._spinning if self._spins else self._blocking
        try:
            self.pause()  # it has started when it answers
        except BaseException:
            self.close()
            raise

    @property
    def pipes(self) -> tuple[int, int]:
        """Where requests are written and replies read, for who waits in another way."""
        return self._requests, self._replies

    def _blocking(self) -> bytes:
        os.write(self._requests, _REQUEST)
        return os.read(self._replies, REPLY_BYTES)

    def _spinning(self) -> bytes:
        os.write(self._requests, _REQUEST)
        while True:
            try:
                return os.read(self._replies, REPLY_BYTES)
            except BlockingIOError:
                pass

    def pause(self) -> None:
        """The child blocks from here until the next message. RuntimeError when it has died."""
        os.set_blocking(self._replies, True)
        os.write(self._requests, _PAUSE)
        if len(os.read(self._replies, REPLY_BYTES)) != REPLY_BYTES:
            raise RuntimeError("the echo child died")
        os.set_blocking(self._replies, not self._spins)

    def block(self, key: str, *, calls: int, lead_in: int) -> Contender:
        """As `measure.block`, pausing the child after the clock has stopped."""
        round_trip = self.round_trip

        def sample() -> Mapping[str, float]:
            for _ in range(lead_in):
                round_trip()
            started = time.perf_counter()
            for _ in range(calls):
                round_trip()
            taken = (time.perf_counter() - started) / calls
            self.pause()
            return {key: taken}

        return sample

    def close(self) -> None:
        """End the child and reap it."""
        os.close(self._requests)
        os.close(self._replies)
        try:
            self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _cls: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None) -> None:
        self.close()
