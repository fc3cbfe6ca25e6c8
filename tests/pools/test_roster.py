"""The books of a pool, as a state machine: in whatever order it is asked, who gets which instance is as promised."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pdsandbox.roster import Lease, Roster, Slot
from pdsandbox.sizes import Sizes

TENANTS = (None, "a", "b")


class Books(RuleBasedStateMachine):
    """A roster, and beside it who was told what."""

    @initialize(data=st.data())
    def begin(self, data):
        most = data.draw(st.integers(1, 4))
        self.sizes = Sizes(
            min=data.draw(st.integers(0, most)),
            max=most,
            queue=data.draw(st.integers(0, 5)),
            reset=data.draw(st.sampled_from(["never", "each_call"])),
            max_calls=data.draw(st.none() | st.integers(1, 3)),
            max_idle_s=data.draw(st.none() | st.just(5)),
            tenant_running=data.draw(st.none() | st.integers(1, most)),
            tenant_queue=None,
        )
        self.roster = Roster(self.sizes)
        self.now, self.swaps = 0.0, 0
        self.holding, self.queued = [], []
        self.starting, self.ending = [], []
        self.served_for = {}  # tenants by slot
        self.ended = set()

    def granted(self, leases):
        for lease in leases:
            self.queued.remove(lease)
            self.got(lease)

    def got(self, lease):
        slot = lease.slot
        assert slot is not None
        assert not lease.queued
        assert slot not in self.ended
        assert slot not in self.ending
        assert slot.version == self.roster.version
        assert all(other.slot is not slot for other in self.holding), "two callers have one instance"
        assert self.served_for.setdefault(slot, lease.tenant) == lease.tenant, "an instance changed its tenant"
        self.holding.append(lease)

    @rule(tenant=st.sampled_from(TENANTS))
    def call(self, tenant):
        lease = Lease(tenant)
        if self.roster.take(lease):
            self.got(lease)
            return
        if self.roster.closed:
            return
        if self.roster.full(tenant):
            assert len(self.queued) >= self.sizes.queue
            return
        sure = self.roster.sure(tenant)
        assert not sure or len(self.holding) < self.sizes.max
        self.queued.append(lease)
        self.granted(self.roster.wait(lease))

    @precondition(lambda self: self.holding)
    @rule(data=st.data(), usable=st.booleans())
    def give(self, data, usable):
        lease = data.draw(st.sampled_from(self.holding))
        self.holding.remove(lease)
        self.granted(self.roster.give(lease, self.now, usable=usable))
        assert self.roster.give(lease, self.now) == [], "given back twice"

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def give_up(self, data):
        lease = data.draw(st.sampled_from(self.queued))
        self.queued.remove(lease)
        self.granted(self.roster.leave(lease))
        assert lease.slot is None

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def wait_a_while(self, seconds):
        self.now += seconds

    @rule(startable=st.booleans())
    def work(self, startable):
        self.roster.startable = startable
        action = self.roster.next_action(self.now)
        if action is True:
            assert startable
            self.starting.append(self.roster.version)
        elif action is not False:
            assert action.lease is None
            self.ending.append(action)

    @precondition(lambda self: self.starting)
    @rule(fails=st.booleans())
    def start_is_over(self, fails):
        version = self.starting.pop()
        if fails:
            told = self.roster.start_failed()
            if told is not None:
                assert not self.holding
                self.queued.remove(told)
        else:
            self.granted(self.roster.started(Slot(object(), version), self.now))

    @precondition(lambda self: self.ending)
    @rule()
    def end_is_over(self):
        self.ended.add(self.ending.pop())
        self.roster.ended()

    @precondition(lambda self: self.roster.idle)
    @rule(data=st.data())
    def idle_one_dies(self, data):
        self.roster.remove(data.draw(st.sampled_from(self.roster.idle)))

    @rule()
    def swap(self):
        if not self.roster.closed and self.swaps < 2:
            self.swaps += 1
            self.roster.swap()
            self.granted(self.roster.add(Slot(object(), self.roster.version), self.now))

    @precondition(lambda self: self.now > 12)
    @rule()
    def close(self):
        told = self.roster.close()
        assert sorted(map(id, told)) == sorted(map(id, self.queued))
        self.queued.clear()

    @invariant()
    def the_books_are_right(self):
        if not hasattr(self, "roster"):
            return
        roster = self.roster
        assert roster.waiting == len(self.queued)
        assert {lease.slot for lease in self.holding} == set(roster.leased)
        assert not set(roster.idle) & set(roster.leased)
        assert roster.starting == len(self.starting)
        assert roster.total <= self.sizes.max + self.swaps
        if self.sizes.tenant_running is not None:
            for tenant in TENANTS:
                assert sum(lease.tenant == tenant for lease in self.holding) <= self.sizes.tenant_running
        for tenant in TENANTS:
            running, waiting = roster.of_tenant(tenant)
            assert running == sum(lease.tenant == tenant for lease in self.holding)
            assert waiting == sum(lease.tenant == tenant for lease in self.queued)

    @invariant()
    def nobody_waits_beside_an_instance_that_is_free(self):
        if not hasattr(self, "roster"):
            return
        if self.queued and self.sizes.tenant_running is None:
            assert not self.roster._fresh

    def teardown(self):
        """Left to itself, with starts that succeed and callers who give back, everybody is served, and all ends."""
        if not hasattr(self, "roster"):
            return
        roster = self.roster
        roster.startable = True
        waited = list(self.queued)
        for _ in range(1000):
            action = roster.next_action(self.now)
            if action is True:
                self.starting.append(roster.version)
            elif action is not False:
                self.ending.append(action)
            elif self.starting:
                self.granted(roster.started(Slot(object(), self.starting.pop(0)), self.now))
            elif self.ending:
                self.end_is_over()
            elif self.holding:
                self.granted(roster.give(self.holding.pop(0), self.now))
            else:
                break
        assert not self.queued, "somebody waits for ever"
        assert not any(lease.queued for lease in waited)
        if not roster.closed:
            assert self.sizes.min <= roster.alive
        roster.close()
        while (slot := roster.next_action(self.now)) is not False:
            self.ending.append(slot)
            self.end_is_over()
        assert (roster.total, roster._accounts, roster._ring) == (0, {}, {})


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def roster(instances=0, **sizes):
    """With so many instances, fresh."""
    made = Roster(Sizes(**{"min": 0, "max": 4, "queue": 100} | sizes))
    for _ in range(instances):
        made.add(Slot(object(), 0), 0.0)
    return made


def taken(books, tenant=None):
    lease = Lease(tenant)
    assert books.take(lease)
    return lease


def queue(books, *tenants):
    leases = [Lease(tenant) for tenant in tenants]
    for lease in leases:
        assert books.wait(lease) == []
    return leases


def test_the_warmest_instance_serves_next():
    """Its memory is in the caches; the others may idle until they end."""
    books = roster(3)
    first, second = taken(books), taken(books)
    warm = second.slot
    books.give(first, 1.0)
    books.give(second, 2.0)
    assert taken(books).slot is warm


def test_who_waits_is_served_in_turn():
    """First come, first served, also by an instance that comes free while others wait."""
    books = roster(1, max=1)
    lease = taken(books)
    waiting = queue(books, None, None, None)
    for expected in waiting:
        assert not books.take(Lease())
        assert books.give(lease, 1.0) == [expected]
        lease = expected


def test_tenants_who_wait_take_turns():
    """One with a hundred calls keeps nobody waiting for more than one of them."""
    books = roster(1, max=1, reset="each_call")
    lease = taken(books, "greedy")
    greedy = queue(books, *["greedy"] * 3)
    modest = queue(books, "modest")
    served = []
    while books.waiting or lease is not None:
        if lease is not None:
            assert books.give(lease, 1.0) == []
            lease = None
        action = books.next_action(1.0)
        if action is True:
            (lease,) = books.started(Slot(object(), 0), 1.0)
            served.append(lease)
        elif action is not False:
            books.ended()
    assert served == [greedy[0], modest[0], greedy[1], greedy[2]]


def test_another_tenants_idle_instance_ends_to_make_room():
    """It is not lent to somebody else, and nobody waits for it for ever."""
    books = roster(1, max=1)
    lease = taken(books, "a")
    books.give(lease, 1.0)
    (waits,) = queue(books, "b")
    ends = books.next_action(1.0)
    assert isinstance(ends, Slot)
    assert books.next_action(1.0) is False
    books.ended()
    assert books.next_action(1.0) is True
    assert books.started(Slot(object(), 0), 1.0) == [waits]


def test_an_instance_that_comes_free_ends_for_whose_turn_it_is():
    """Though its own tenant could use it at once: that one's turn is later."""
    books = roster(1, max=1)
    lease = taken(books, "a")
    queue(books, "b", "a")
    assert books.give(lease, 1.0) == []
    assert isinstance(books.next_action(1.0), Slot)


def test_a_tenant_at_its_limit_waits_beside_free_instances():
    """And its calls in the queue are nobody else's matter."""
    books = roster(4, tenant_running=1)
    first = taken(books, "a")
    assert not books.take(Lease("a"))
    (second,) = queue(books, "a")
    taken(books, "b")
    assert books.give(first, 1.0) == [second]


def test_what_waits_for_room_that_there_is_is_in_no_queue():
    """With `queue=0` a pool without an instance still serves as many callers as it may have instances."""
    books = roster(max=2, queue=0)
    assert not books.full(None)
    queue(books, None)
    assert not books.full(None)
    queue(books, None)
    assert books.full(None)


def test_idle_instances_end_down_to_the_minimum():
    """The longest idle first, and just before its time none."""
    books = roster(3, min=1, max_idle_s=5)
    assert (books.next_action(4.9), books.next_look()) == (False, 5.0)
    ends = [books.next_action(5.0), books.next_action(5.0), books.next_action(5.0)]
    assert [type(each) for each in ends] == [Slot, Slot, bool]


def test_nothing_ends_for_others_while_nothing_may_start():
    """Or a pool whose plugin is quarantined would lose what still serves."""
    books = roster(1, max=1)
    books.give(taken(books, "a"), 1.0)
    books.startable = False
    queue(books, "b")
    assert books.next_action(1.0) is False
    assert len(books.idle) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"min": -1},
        {"min": 5},
        {"min": 1.0},
        {"min": True},
        {"max": 0},
        {"max": 10_001},
        {"queue": -1},
        {"queue": None},
        {"reset": "sometimes"},
        {"reset": None},
        {"max_calls": 0},
        {"max_idle_s": 0},
        {"max_idle_s": float("nan")},
        {"max_idle_s": True},
        {"tenant_running": 0},
        {"tenant_running": 5},
        {"tenant_queue": 101},
    ],
)
def test_sizes_that_make_no_sense_are_refused(wrong):
    """With the name of the one that is wrong."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sizes(**{"min": 0, "max": 4, "queue": 100} | wrong)


def test_one_that_still_ends_after_a_swap_is_no_room_to_come():
    """While it does, there is one more than may be: another tenant's idle instance has to end all the same."""
    books = roster(max=1)
    books.swap()
    books.add(Slot(object(), 1), 0.0)
    lease = taken(books)
    (other,) = queue(books, "a")
    assert books.give(lease, 0.0, usable=False) == []  # it ends, and has not ended yet
    books.swap()
    assert books.add(Slot(object(), 2), 0.0) == [other]
    (waiting,) = queue(books, None)
    assert books.give(other, 0.0) == []
    served = []
    while (action := books.next_action(0.0)) is not False or books.ending:
        if action is True:
            served += books.started(Slot(object(), 2), 0.0)
        else:
            books.ended()
    assert served == [waiting]
