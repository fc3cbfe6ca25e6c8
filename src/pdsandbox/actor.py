"""`WasmActor`: a module as an actor of the Palladium plugin layer, driven message by message.

Over the interface only, so with every host. It knows where a message lies in the guest's memory, which entry points
there are, and what is sent when; mailboxes, addresses and what an envelope means are its caller's, and when a lost
instance is replaced is the restart policy's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from .calls import as_data
from .errors import CallError, Cause, InstantiationError, MemoryAccessError
from .externs import FuncType, MemoryType
from .imports import WasmImports
from .interfaces import WasmHost, WasmInstance, WasmModule
from .limits import check_limit
from .plugin import Plugin
from .restarts import RestartPolicy
from .text import one_line
from .values import I32

if TYPE_CHECKING:
    from .wasi import Wasi

__all__ = ["WasmActor"]

#: Of the Palladium message envelope; it lies at the beginning of the guest's memory, the payload right behind it.
ENVELOPE_BYTES: Final = 80

ON_START: Final = "pd_actor_on_start"
ON_MESSAGE: Final = "pd_actor_on_message"
ON_STOP: Final = "pd_actor_on_stop"

_I32: Final = "i32"
#: Parameters that an entry point may take, by how many there are: functions of what it is called for.
_MESSAGE: Final[tuple[Callable[[int], tuple[int, ...]], ...]] = (
    lambda _length: (),
    lambda length: (length,),
    lambda length: (0, length),
    lambda length: (0, ENVELOPE_BYTES, length),
    lambda length: (0, ENVELOPE_BYTES, ENVELOPE_BYTES, length),
)
_MOST_PARAMS: Final = {ON_START: 0, ON_MESSAGE: len(_MESSAGE) - 1, ON_STOP: 1}
_NOT_THERE: Final = object()


class WasmActor:
    """One actor: `on_start()`, then `on_message(envelope, payload)` as often as there are messages, then `on_stop()`.

    module, host      what it runs, and where; compiled by that host
    fuel_per_message  units of fuel for each message, and for starting and stopping; 0: the host's default
    send              called with (envelope, payload) of each message that the guest has sent, in order, once what it
                      sent them in has succeeded
    imports           what else the guest may call (its `pd_send` is the actor's own)
    wasi, restart     as for `WasmHost.plugin`

    The guest exports its memory, `pd_actor_on_message` and, if it likes, `pd_actor_on_start` and `pd_actor_on_stop`.
    Each returns nothing or an i32, of which anything but 0 means that it failed. `on_start` takes nothing. `on_stop`
    takes nothing or the reason. `on_message` takes, all i32, one of

        ()  (payload_len)  (envelope, payload_len)  (envelope, payload, payload_len)
        (envelope, envelope_len, payload, payload_len)

    where envelope is 0, envelope_len 80 and payload 80: there the message lies when it is called. The memory is the
    guest's again when it returns. `pd_send` takes envelopes of 80 bytes; of others it answers -1.

    What a failing message had sent is dropped; the actor goes on. If its instance is gone, the restart policy decides:
    by default the next message finds a new one, started as the first was, with nothing of its memory left. No message
    is handled twice. Any thread may use an actor, one at a time; its host functions and `send` may not use it.
    """

    def __init__(
        self,
        module: WasmModule,
        host: WasmHost,
        fuel_per_message: int = 0,
        *,
        send: Callable[[bytes, bytes], object],
        imports: WasmImports | None = None,
        wasi: Wasi | None = None,
        restart: RestartPolicy | None = None,
    ) -> None:
        """Raises TypeError and ValueError for what makes no sense. Nothing is started."""
        if not callable(send):
            raise TypeError(f"send takes a function, not {type(send).__name__}")
        if imports is not None and not isinstance(imports, WasmImports):
            raise TypeError(f"imports must be WasmImports, not {type(imports).__name__}")
        none = type(fuel_per_message) is int and fuel_per_message == 0
        self._fuel: int | None = None if none else _fuel(fuel_per_message)
        self._module = module
        self._send = send
        self._outbox: list[tuple[bytes, bytes]] = []
        self._greetings: list[tuple[bytes, bytes]] = []  # what starting has sent
        self._turn = threading.RLock()
        self._owned: Callable[[], bool] = self._turn._is_owned  # type: ignore[attr-defined] # as Condition does
        self._started = False
        self._stopped = False
        self._page_bytes = 0
        self._types: dict[str, FuncType] = {}
        offered = (imports or WasmImports()).with_pd_send(self._queue)
        #: What keeps an instance: how it stands, how many there were, `reset`.
        self.plugin = Plugin(host, module, offered, wasi=wasi, restart=restart, prepare=self._prepare)

    def on_start(self) -> bool:
        """Start its instance and call `pd_actor_on_start`. False if that failed and the policy says `"open"`: then
        messages are passed over until it can be started.

        Raises InstantiationError for a module that is no actor, and what instantiating and that call end in; it may
        then be tried again, as the policy allows (`Quarantined`).
        """
        with self._mine():
            if self._started:
                raise CallError("the actor was started before")
            self._check_module()
            there = self.plugin.use(lambda _instance: None, default=_NOT_THERE) is None
            self._started = True
            self._drain(self._greetings)
            return there

    def on_message(self, envelope: bytes, payload: bytes = b"") -> bool:
        """Have the guest handle one message, then send what it sent. False if it was passed over (`"open"`).

        Raises what the guest's call ends in (what it sent is dropped), `Quarantined`, CallError for a message that does
        not fit into its memory, and what `send` raises: that message and those after it are dropped then.
        """
        head, body = _bytes("envelope", envelope), _bytes("payload", payload)
        if len(head) != ENVELOPE_BYTES:
            raise CallError(f"an envelope has {ENVELOPE_BYTES} bytes, not {len(head):,}", observed=len(head))
        with self._mine():
            if not self._started:
                raise CallError("the actor was not started")
            if self.plugin.use(lambda _instance: None, default=_NOT_THERE) is not None:
                return False
            self._drain(self._greetings)
            try:
                there = self.plugin.use(lambda instance: self._handle(instance, head + body), default=_NOT_THERE)
                if there is not None:
                    return False
                self._drain(self._greetings)
                self._drain(self._outbox)
            finally:
                self._outbox.clear()
            return True

    def on_stop(self, reason: int = 0) -> None:
        """Call `pd_actor_on_stop`, if there is an instance that has it, send what that sent, and end the instance.
        `reason` is an i32. Afterwards the actor is closed; twice is allowed. Raises what that call ends in."""
        if isinstance(reason, bool) or not isinstance(reason, int) or not -(2**31) <= reason < 2**31:
            raise CallError("the reason to stop is an i32")
        if self._stopped and not self._owned():
            return
        with self._mine():
            self._stopped = True
            try:
                instance = self.plugin.current()
                if instance is not None and ON_STOP in self._types:
                    self._enter(instance, ON_STOP, (reason,)[: len(self._types[ON_STOP].params)])
            except BaseException:
                self._outbox.clear()
                raise
            finally:
                self.plugin.close()
            self._drain(self._outbox)

    # --- turns ---

    def _mine(self) -> threading.RLock:
        """The lock to hold; refuses who has it, and an actor that was stopped."""
        if self._owned():
            raise CallError("an actor cannot be used from inside its own host function, or from its send function")
        if self._stopped:
            raise CallError("the actor is stopped", cause=Cause.CLOSED)
        return self._turn

    # --- inside the guest ---

    def _check_module(self) -> None:
        """Look at what the module exports, before a worker is started for it."""
        types = self._module.export_types()
        memories = [item.type for item in types if isinstance(item.type, MemoryType)]
        named = [item.type for item in types if item.name == "memory" and isinstance(item.type, MemoryType)]
        if not memories:
            raise InstantiationError("the module is no actor: it exports no memory")
        self._page_bytes = (named or memories)[0].page_bytes
        found = {item.name: item.type for item in types if item.name in _MOST_PARAMS}
        if ON_MESSAGE not in found:
            raise InstantiationError(f"the module is no actor: it does not export {ON_MESSAGE}")
        for name, type_ in found.items():
            if not isinstance(type_, FuncType) or not _fits(type_, _MOST_PARAMS[name]):
                shown = one_line(str(type_), 300)
                raise InstantiationError(f"the module is no actor: {name} is {shown}, which no actor has")
            self._types[name] = type_

    def _prepare(self, instance: WasmInstance) -> None:
        """Part of starting an instance."""
        try:
            if ON_START in self._types:
                try:
                    self._enter(instance, ON_START, ())
                except CallError as exc:
                    if exc.cause is Cause.GUEST_EXIT:
                        raise InstantiationError(exc.message, cause=exc.cause, exit_code=exc.exit_code) from None
                    raise
            self._greetings = self._outbox[:]
        finally:
            self._outbox.clear()

    def _handle(self, instance: WasmInstance, message: bytes) -> None:
        try:
            instance.memory_write(0, message)
        except MemoryAccessError:
            self._make_room(instance, len(message))
            instance.memory_write(0, message)
        length = len(message) - ENVELOPE_BYTES
        self._enter(instance, ON_MESSAGE, _MESSAGE[len(self._types[ON_MESSAGE].params)](_signed(length)))

    def _make_room(self, instance: WasmInstance, needed: int) -> None:
        pages, page = instance.memory_grow(0), self._page_bytes
        if instance.memory_grow(-(-needed // page) - pages) < 0:
            text = f"a message takes {needed:,} bytes: the guest's memory has {pages * page:,} and cannot grow to that"
            raise CallError(text, limit=pages * page, observed=needed)

    def _enter(self, instance: WasmInstance, name: str, args: tuple[int, ...]) -> None:
        if self._fuel is not None:
            instance.set_fuel(self._fuel)
        for result in instance.call(name, args):
            if isinstance(result, I32) and result.value:
                text = f"{name} failed with {result.value}"
                raise CallError(text, cause=Cause.GUEST_EXIT, exit_code=result.value)

    # --- what it sends ---

    def _queue(self, envelope: bytes, payload: bytes) -> int:
        """The guest's `pd_send`."""
        if len(envelope) != ENVELOPE_BYTES:
            return -1
        self._outbox.append((envelope, payload))
        return 0

    def _drain(self, messages: list[tuple[bytes, bytes]]) -> None:
        queued, messages[:] = messages[:], []
        for envelope, payload in queued:
            self._send(envelope, payload)


def _fuel(value: object) -> int:
    try:
        checked: int | None = check_limit("fuel", value)
    except ValueError as exc:
        raise ValueError(str(exc).replace("fuel must", "fuel_per_message must").replace("None", "0")) from None
    if checked is None:
        raise ValueError("fuel_per_message must be an integer; 0 is the host's default")
    return checked


def _bytes(name: str, value: object) -> bytes:
    try:
        return as_data(value)
    except CallError:
        raise CallError(f"the {name} must be bytes, not {type(value).__name__}") from None


def _fits(type_: FuncType, most: int) -> bool:
    return len(type_.params) <= most and set(type_.params) <= {_I32} and type_.results in ((), (_I32,))


def _signed(length: int) -> int:
    """As an i32, which the guest takes as unsigned; more than that is in no memory whose addresses are i32."""
    return length if length < 1 << 31 else length - (1 << 32)
