"""Which message is legal when: the whole table, and what must hold of it whoever writes it."""

from __future__ import annotations

import itertools
import random

import pytest
from wire_end import SUPERVISOR, WORKER

from pdsandbox.protocol import messages as m
from pdsandbox.protocol.codec import ProtocolError
from pdsandbox.protocol.orders import TABLE, Orders, State

S = State
RUNNING = ("LOADING", "ADDING", "CALLING", "BATCH")
HOSTS = {S[f"{name}_HOST"]: S[name] for name in RUNNING}
STREAMS = {S[f"{name}_STREAM"]: S[name] for name in RUNNING}
ASKED = {m.STREAM_WRITE, m.STREAM_READ, m.STREAM_POLL, m.LINK_TIMES}
MEMORIES = {S[f"{name}_MEMORY"]: S[f"{name}_HOST"] for name in RUNNING}
#: READY is still owed.
STARTS = {S.STARTING, S.STARTING_LOAD, S.STARTING_COMPILE}
# Where a conversation may rest: nobody owes anything. A compiler exits after its last ARTIFACT.
RESTS = {S.FRESH, S.IDLE, S.COMPILED, S.GONE}


def kinds_in(state: State) -> set[int]:
    return {kind for at, kind in TABLE if at is state}


def moves(state: State) -> set[State]:
    """Every state that one message leads to from `state`, asked of Orders and not of the table."""
    found = set()
    for kind, failed in itertools.product(range(256), (False, True)):
        orders = Orders(state)
        if orders.legal(kind):
            orders.advance(kind, failed=failed)
            found.add(orders.state)
    return found


def reachable(start: State) -> set[State]:
    seen, todo = {start}, [start]
    while todo:
        fresh = moves(todo.pop()) - seen
        seen |= fresh
        todo += fresh
    return seen


@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
def test_every_pair_is_in_the_table_or_refused(state: State) -> None:
    """Of all 256 kinds, those in the table move as it says; any other is a ProtocolError and moves nothing."""
    for kind in range(256):
        orders = Orders(state)
        if (state, kind) in TABLE:
            assert orders.legal(kind)
            orders.advance(kind)
            assert orders.state is TABLE[state, kind]
        else:
            assert not orders.legal(kind)
            for failed in (False, True):
                with pytest.raises(ProtocolError, match=f"{kind} is not legal in state {state.name}"):
                    orders.advance(kind, failed=failed)
            assert orders.state is state


@pytest.mark.parametrize("kind", sorted(set(range(256)) - set(m.MESSAGES)))
def test_unknown_kinds_are_refused(kind: int) -> None:
    """A kind that no message has is refused whatever its payload is, and is legal in no state."""
    for payload in (b"", b"\0" * 64, b"\xff" * 64):
        with pytest.raises(ProtocolError, match="unknown"):
            m.decode(kind, payload)
    assert not any(Orders(state).legal(kind) for state in State)


def test_the_table_holds_states_and_known_kinds_only() -> None:
    """Each row is made of states and kinds that exist, and each kind has a place in it."""
    assert {kind for _, kind in TABLE} == set(m.MESSAGES) == SUPERVISOR | WORKER
    assert all(type(at) is State and type(to) is State for (at, _), to in TABLE.items())
    assert not SUPERVISOR & WORKER


def test_ready_comes_once_and_first() -> None:
    """READY is the first that a worker or compiler may send, and never comes again."""
    assert Orders().state is S.STARTING
    assert kinds_in(S.STARTING) & WORKER == {m.READY}
    for state in STARTS:
        assert TABLE[state, m.READY] not in STARTS
        assert not reachable(TABLE[state, m.READY]) & STARTS
    assert {at for at, kind in TABLE if kind == m.READY} == STARTS


def test_it_is_always_one_side_s_turn() -> None:
    """In each state but two only one side may speak, so a message out of turn has nowhere to be legal.

    The two are the first, where a request may be sent ahead, and CALLING: there the supervisor may say, of its own
    accord, that a pd_log failed, and nothing else.
    """
    for state in set(State) - {S.STARTING, S.CALLING}:
        kinds = kinds_in(state)
        assert kinds <= SUPERVISOR or kinds <= WORKER, state
    assert kinds_in(S.CALLING) & SUPERVISOR == {m.HOST_FAIL}


def test_that_a_log_failed_is_said_once() -> None:
    """HOST_FAIL is legal where the guest waits for an answer and, unasked, in CALLING; after that the supervisor may
    say nothing until the worker has ended the call."""
    assert {at for at, kind in TABLE if kind == m.HOST_FAIL} == {*HOSTS, *STREAMS, S.CALLING}
    assert TABLE[S.CALLING, m.HOST_FAIL] is S.CALLING_FAILED
    assert not kinds_in(S.CALLING_FAILED) & SUPERVISOR
    assert [at for (at, _), to in TABLE.items() if to is S.CALLING_FAILED and at is not to] == [S.CALLING]


def test_a_log_waits_for_no_answer_in_a_call_only() -> None:
    """HOST_LOG is legal in a call alone, not while loading nor in a batch, and changes nothing about who owes what."""
    assert {at for at, kind in TABLE if kind == m.HOST_LOG} == {S.CALLING, S.CALLING_FAILED}
    assert all(to is at for (at, kind), to in TABLE.items() if kind == m.HOST_LOG)


def test_whatever_crosses_a_failed_log_s_news_is_legal() -> None:
    """A worker that has not heard of the failure may say all that it might have said, and comes to the same end.

    What it says is legal whether it was sent before the news or after, and the call ends with RESULT or ERROR alone.
    What waits for an answer when it crosses the news has it for that, and gets no second one.
    """
    unanswered, ends = {m.HOST_LOG, m.STREAM_OUT}, {m.RESULT, m.ERROR}
    assert kinds_in(S.CALLING_FAILED) == kinds_in(S.CALLING) & WORKER == {*unanswered, m.HOST_CALL, *ASKED, *ends}
    failed = TABLE[S.CALLING, m.HOST_FAIL]
    for kind in unanswered:
        assert TABLE[failed, kind] is TABLE[TABLE[S.CALLING, kind], m.HOST_FAIL]
    for kind in (m.HOST_CALL, *ASKED):
        assert TABLE[failed, kind] is failed
    for end in (m.RESULT, m.ERROR):
        assert TABLE[failed, end] is TABLE[S.CALLING, end] is S.IDLE
    assert moves(failed) == {failed, S.IDLE}


@pytest.mark.parametrize("kind", [m.LOAD, m.COMPILE])
def test_what_is_sent_ahead_of_ready_may_cross_it(kind: int) -> None:
    """Where both sides may speak, the order in which their messages come makes no difference."""
    assert kinds_in(S.STARTING) & SUPERVISOR == {m.LOAD, m.COMPILE}
    assert TABLE[TABLE[S.STARTING, kind], m.READY] is TABLE[TABLE[S.STARTING, m.READY], kind]


def test_every_state_is_reachable() -> None:
    """A conversation can come into every state there is."""
    assert reachable(S.STARTING) == set(State)


def test_every_state_but_gone_has_an_exit() -> None:
    """Something is legal in every state but GONE, and each leads back to where nobody owes anything."""
    assert [state for state in State if not moves(state)] == [S.GONE]
    for state in State:
        assert reachable(state) & RESTS, state


def test_operations_begin_only_where_nothing_runs() -> None:
    """COMPILE is legal once, before anything, LOAD also when idle; look-ups when idle, calls when idle or after one."""
    for kind, also in ((m.LOAD, {S.IDLE}), (m.COMPILE, set())):
        begins = {at for at, k in TABLE if k == kind}
        assert begins == {S.STARTING, S.FRESH} | also
        assert not any(reachable(TABLE[at, kind]) & {S.STARTING, S.FRESH} for at in begins)
    assert [at for at, k in TABLE if k == m.RESOLVE] == [S.IDLE]
    for kind in (m.CALL, m.CALL_MANY):
        assert {at for at, k in TABLE if k == kind} == {S.IDLE, S.RESOLVING}


def test_a_worker_outlives_what_it_could_not_add() -> None:
    """A first LOAD that fails is the end of it, a further one leaves it idle; otherwise the two are alike."""
    assert TABLE[S.LOADING, m.ERROR] is S.GONE
    assert TABLE[S.ADDING, m.ERROR] is TABLE[S.ADDING, m.LOADED] is S.IDLE
    assert kinds_in(S.ADDING) == kinds_in(S.LOADING)
    assert S.GONE not in reachable(S.IDLE)


def test_an_instance_is_dropped_when_nothing_runs() -> None:
    """DROP is not answered, and never comes in the middle of anything."""
    assert [(at, to) for (at, kind), to in TABLE.items() if kind == m.DROP] == [(S.IDLE, S.IDLE)]


def test_a_worker_never_compiles_and_a_compiler_never_calls() -> None:
    """What LOAD began never comes to a compiler's messages, and what COMPILE began never to a worker's."""
    loaded, compiled = reachable(S.LOADING), reachable(S.COMPILING)
    assert loaded & compiled == {S.GONE}
    assert not {kind for state in loaded for kind in kinds_in(state)} & {m.COMPILED, m.ARTIFACT, m.COMPILE}


@pytest.mark.parametrize("host", HOSTS, ids=lambda state: state.name)
def test_a_host_function_returns_to_what_called_it(host: State) -> None:
    """Inside a host function only memory accesses and its end are legal, and it ends where it began."""
    assert kinds_in(host) == {m.HOST_RETURN, m.HOST_FAIL, m.MEM_READ, m.MEM_WRITE}
    assert TABLE[HOSTS[host], m.HOST_CALL] is host
    assert TABLE[host, m.HOST_RETURN] is TABLE[host, m.HOST_FAIL] is HOSTS[host]
    assert [at for (at, _), to in TABLE.items() if to is host and at not in MEMORIES] == [HOSTS[host]]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda state: state.name)
def test_what_is_asked_of_a_stream_is_answered_once(stream: State) -> None:
    """By what became of it, or by the end of the guest's call; nothing else may come in between."""
    assert kinds_in(stream) == {m.STREAM_REPLY, m.HOST_FAIL}
    assert moves(stream) == {STREAMS[stream]}
    assert {TABLE[STREAMS[stream], kind] for kind in ASKED} == {stream}


def test_captured_output_is_told_of_while_the_guest_runs() -> None:
    """Not answered, and never when nothing runs; that it was taken is said when nothing runs, and not answered."""
    told = {at for at, kind in TABLE if kind == m.STREAM_OUT}
    assert told == {*STREAMS.values(), S.CALLING_FAILED}
    assert all(TABLE[at, m.STREAM_OUT] is at for at in told)
    assert [(at, to) for (at, kind), to in TABLE.items() if kind == m.STREAM_TAKEN] == [(S.IDLE, S.IDLE)]


@pytest.mark.parametrize("memory", [*MEMORIES, S.MEMORY], ids=lambda state: state.name)
def test_a_memory_access_is_answered_once(memory: State) -> None:
    """A memory access is answered by data, by done or by an error, and ends where it began."""
    assert kinds_in(memory) == {m.MEM_DATA, m.MEM_DONE, m.ERROR}
    assert moves(memory) == {MEMORIES.get(memory, S.IDLE)}


def test_memory_grows_only_while_nothing_runs() -> None:
    """Not from inside a host function; it is answered once, by what became of it or by an error."""
    assert [(at, to) for (at, kind), to in TABLE.items() if kind == m.MEM_GROW] == [(S.IDLE, S.GROWING)]
    assert kinds_in(S.GROWING) == {m.MEM_GROWN, m.ERROR}
    assert moves(S.GROWING) == {S.IDLE}


def test_a_failed_batch_owes_its_error() -> None:
    """RESULTS that say failed are followed by ERROR and nothing else; others end the batch."""
    for failed, after in ((False, S.IDLE), (True, S.BATCH_FAILED)):
        orders = Orders(S.BATCH)
        orders.advance(m.RESULTS, failed=failed)
        assert orders.state is after
    assert kinds_in(S.BATCH_FAILED) == {m.ERROR}
    orders.advance(m.ERROR)
    assert orders.state is S.IDLE


def test_the_failed_flag_is_that_of_results_alone() -> None:
    """`failed` changes nothing for any other message."""
    for (state, kind), after in TABLE.items():
        if kind != m.RESULTS:
            orders = Orders(state)
            orders.advance(kind, failed=True)
            assert orders.state is after


def test_two_ends_stay_in_step() -> None:
    """Over 20,000 random legal messages both ends agree after each, refuse what is not legal, and use every row."""
    rng = random.Random(2)
    ends, used = (Orders(), Orders()), set()
    for _ in range(20_000):
        state = ends[0].state
        legal = sorted(kinds_in(state))
        if not legal or (state in RESTS and rng.random() < 0.2):
            ends = (Orders(), Orders())
            continue
        wrong = rng.randrange(256)
        if wrong not in legal:
            for end in ends:
                with pytest.raises(ProtocolError):
                    end.advance(wrong)
        kind, failed = rng.choice(legal), rng.random() < 0.5
        used.add((state, kind))
        for end in ends:
            end.advance(kind, failed=failed)
        assert ends[0].state is ends[1].state
    assert used == set(TABLE)
