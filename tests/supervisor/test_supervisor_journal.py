"""The journal by itself: order, hooks that raise, block or come back, what is dropped, and how it closes."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref

import pytest
from supervising import PATIENCE_S, eventually, together

from pdsandbox import Cause, Trap, events
from pdsandbox.supervisor import journal as journal_module
from pdsandbox.supervisor import logged, reports
from pdsandbox.supervisor.journal import MOST_QUEUED, Journal


def lost(journal, number=0):
    """Publish an event that `logging` would show, too, numbered by its pid."""
    reports.fork_server_lost(journal, number, 0, "a test")


def hit(journal, name="0"):
    """Publish one that only a hook gets."""
    reports.cache_hit(journal, name, disk=False)


class Hook:
    """Keeps what it is told; while `gate` is closed it stays in its first event."""

    def __init__(self, *, closed=False):
        self.told = []
        self.inside = threading.Event()
        self.gate = threading.Event()
        if not closed:
            self.gate.set()

    def __call__(self, event):
        self.inside.set()
        assert self.gate.wait(PATIENCE_S)
        self.told.append(event)


def telling():
    """Threads that tell events."""
    return [thread for thread in threading.enumerate() if thread.name == "pdsandbox-events"]


@pytest.fixture(autouse=True)
def _threads_end(monkeypatch):
    """They go by themselves, here at once."""
    monkeypatch.setattr(journal_module, "IDLE_S", 0.05)
    yield
    eventually(lambda: not telling())


def test_events_are_told_in_order_and_close_waits_for_them():
    """Those of one thread as it published them, and all before `close` returns."""
    hook = Hook()
    journal = Journal(hook)
    for number in range(1000):
        hit(journal, str(number))
    journal.close()
    assert [event.sha256 for event in hook.told] == [str(number) for number in range(1000)]
    assert journal.counts["hits_memory"] == 1000


@pytest.mark.hammer
def test_many_threads_publish():
    """One at a time reaches the hook, none is lost or told twice, and each thread's come in its order."""
    hook = Hook()
    journal = Journal(hook)
    together(*(lambda who=who: [hit(journal, f"{who} {n}") for n in range(500)] for who in range(8)))
    journal.close()
    told = [tuple(map(int, event.sha256.split())) for event in hook.told]
    assert len(told) == 4000
    for who in range(8):
        assert [n for w, n in told if w == who] == list(range(500))
    assert journal.counts["hits_memory"] == 4000


def test_the_thread_goes_when_there_is_nothing_to_tell_and_comes_back():
    """Nothing runs for a host that is left alone; what comes later is told all the same."""
    hook = Hook()
    journal = Journal(hook)
    for number in range(3):
        hit(journal, str(number))
        eventually(lambda count=number + 1: len(hook.told) == count)
        eventually(lambda: not telling())
    journal.close()


def test_a_hook_that_raises_is_told_of_the_next_one(caplog):
    """Each failure is counted; the first is logged as an error, the others for who debugs."""
    told = []

    def hook(event):
        told.append(event)
        raise (ValueError("a hook's own"), SystemExit(3), KeyboardInterrupt())[len(told) - 1]

    journal = Journal(hook)
    caplog.set_level(logging.DEBUG, "pdsandbox.events")
    for _ in range(3):
        hit(journal)
    journal.close()
    assert len(told) == journal.hook_failures == 3
    records = [record for record in caplog.records if record.name == "pdsandbox.events"]
    assert [record.levelno for record in records] == [logging.ERROR, logging.DEBUG, logging.DEBUG]
    assert "a hook's own" in records[0].exc_text


def test_what_a_slow_hook_has_no_time_for_is_dropped_and_counted():
    """Nobody waits. The first are kept; where others are missing, `EventsDropped` says how many."""
    hook = Hook(closed=True)
    journal = Journal(hook)
    hit(journal, "first")
    assert hook.inside.wait(PATIENCE_S)
    for number in range(MOST_QUEUED + 10):
        hit(journal, str(number))
    assert journal.dropped == 10
    hook.gate.set()
    eventually(lambda: len(hook.told) == 1 + MOST_QUEUED)
    hit(journal, "last")
    journal.close()
    *kept, gap, last = hook.told
    assert [event.sha256 for event in kept] == ["first", *map(str, range(MOST_QUEUED))]
    assert (type(gap), gap.count) == (events.EventsDropped, 10)
    assert last.sha256 == "last"
    assert journal.counts["hits_memory"] == MOST_QUEUED + 12


def test_close_tells_of_a_gap_that_nothing_followed():
    """What was dropped at the very end is told, too."""
    hook = Hook(closed=True)
    journal = Journal(hook)
    hit(journal)
    assert hook.inside.wait(PATIENCE_S)
    for _ in range(MOST_QUEUED + 1):
        hit(journal)
    hook.gate.set()
    journal.close()
    eventually(lambda: not telling())
    assert hook.told[-1].count == 1


def test_close_does_not_wait_for_ever(monkeypatch):
    """A hook that blocks holds `close` up for CLOSE_S; what waits is told when it returns."""
    monkeypatch.setattr(journal_module, "CLOSE_S", 0.01)
    hook = Hook(closed=True)
    journal = Journal(hook)
    hit(journal, "a")
    hit(journal, "b")
    assert hook.inside.wait(PATIENCE_S)
    journal.close()
    assert hook.told == []
    hit(journal, "after close")
    hook.gate.set()
    eventually(lambda: [event.sha256 for event in hook.told] == ["a", "b"])


def test_a_hook_may_publish_and_close():
    """Both from its own thread, which waits for nobody."""
    told = []

    def hook(event):
        told.append(event.sha256)
        if event.sha256 == "first":
            hit(journal, "second")
            journal.close()
            journal.close()

    journal = Journal(hook)
    hit(journal, "first")
    eventually(lambda: told == ["first", "second"])


def test_a_journal_whose_hook_refers_to_it_goes():
    """Nothing of ours keeps a host that was dropped, once all is told."""

    class Host:
        def __init__(self):
            self.journal = Journal(self.on_event)

        def on_event(self, event):
            pass

    host = Host()
    hit(host.journal)
    gone = weakref.ref(host)
    del host
    eventually(lambda: not telling())
    gc.collect()
    assert gone() is None


def test_without_a_thread_events_wait(monkeypatch):
    """This process may have no more threads: nobody is hurt, and the next one that finds a thread tells all."""
    hook = Hook()
    journal = Journal(hook)
    start = threading.Thread.start

    def refuse(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    hit(journal, "0")
    monkeypatch.setattr(threading.Thread, "start", start)
    hit(journal, "1")
    journal.close()
    assert [event.sha256 for event in hook.told] == ["0", "1"]


def test_a_fork_tells_nothing():
    """A child of the process whose host it is has neither its thread nor its events."""
    hook = Hook()
    journal = Journal(hook)
    hit(journal)
    eventually(lambda: len(hook.told) == 1)
    pid = os.fork()
    if not pid:
        hit(journal)
        os._exit(len(journal._queue) + 10 * len(telling()))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    journal.close()


def test_nobody_listening_costs_no_event(monkeypatch):
    """Without a hook, and without a logger that would show it, it is counted and not even made."""
    monkeypatch.setattr(journal_module, "_events", lambda: pytest.fail("an event was made"))
    journal = Journal()
    hit(journal)
    assert journal.counts["hits_memory"] == 1
    assert not telling()


def test_every_event_has_a_line_of_its_own(caplog):
    """Each class of event is published, or at least logged, somehow: none lacks words, a logger or a level."""
    classes = {name for name in events.__all__ if name != "Event"}
    assert set(logged._LINES) == classes


def test_fields_are_attributes_of_the_record_and_texts_are_escaped(caplog):
    """What a guest may have chosen is on one line, and cannot steer a terminal."""
    caplog.set_level(logging.DEBUG, "pdsandbox")
    journal = Journal()
    error = Trap("an \x1b[31mevil\nname\u202e " + "x" * 1000, cause=Cause.GUEST_TRAP)
    reports.quarantined(journal, "ab\ncd\x07ef", 3, error, None)
    journal.close()
    record = next(record for record in caplog.records if record.name == "pdsandbox.worker")
    assert (record.levelno, record.pd_event, record.pd_sha256, record.pd_failures, record.pd_seconds) == (
        logging.WARNING,
        "Quarantined",
        "ab cd\\x07ef",
        3,
        None,
    )
    for text in (record.getMessage(), record.pd_reason):
        assert text.isprintable()
        assert len(text) < 700


def test_a_handler_that_raises_or_blocks_hurts_nobody(monkeypatch):
    """Logging is done by the same thread, and bounded as the hook is."""
    entered, gate = threading.Event(), threading.Event()

    class Handler(logging.Handler):
        def emit(self, record):
            entered.set()
            assert gate.wait(PATIENCE_S)
            raise OSError("a full disk")

    handler, logger = Handler(), logging.getLogger("pdsandbox.forkserver")
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.addHandler(handler)
    hook = Hook()
    journal = Journal(hook)
    try:
        lost(journal, 1)
        assert entered.wait(PATIENCE_S)
        for number in range(MOST_QUEUED + 1):
            lost(journal, number)
        assert journal.dropped == 1
    finally:
        logger.removeHandler(handler)
        gate.set()
    journal.close()
    assert journal.hook_failures == 1
    eventually(lambda: not telling())
