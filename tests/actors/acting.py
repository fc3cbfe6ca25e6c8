"""The guests of the actor tests, and how they are driven."""

from __future__ import annotations

from typing import Any

from pdsandbox import WasmActor

PAGE = 65536
#: What the guest does with a payload is said by its first byte.
GUEST = """(module
  (import "env" "pd_send" (func $send (param i32 i32 i32 i32) (result i32)))
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1 {pages})
  (global $count (mut i32) (i32.const 0))
  (func $emit (param $at i32) (param $length i32)
    (drop (call $send (i32.const 0) (i32.const 80) (local.get $at) (local.get $length))))
  (func (export "pd_actor_on_start")
    (memory.fill (i32.const 0) (i32.const 0) (i32.const 80))
    (i32.store8 (i32.const 60000) (i32.const 115)) (call $emit (i32.const 60000) (i32.const 1)))
  (func (export "pd_actor_on_message") (param $envelope i32) (param $payload i32) (param $length i32) (result i32)
    (local $what i32)
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (local.set $what (i32.load8_u (local.get $payload)))
    (call $emit (local.get $payload) (local.get $length))
    (if (i32.eq (local.get $what) (i32.const 116)) (then (unreachable)))                       ;; "t"
    (if (i32.eq (local.get $what) (i32.const 108)) (then (loop $l (br $l))))                   ;; "l"
    (if (i32.eq (local.get $what) (i32.const 102)) (then (return (i32.const -3))))             ;; "f"
    (if (i32.eq (local.get $what) (i32.const 100)) (then (call $log (i32.const 0) (i32.const 0) (i32.const 0))))
    (i32.store (i32.const 60000) (global.get $count)) (call $emit (i32.const 60000) (i32.const 4))
    (i32.const 0))
  (func (export "pd_actor_on_stop") (param $reason i32)
    (i32.store (i32.const 60000) (local.get $reason)) (call $emit (i32.const 60000) (i32.const 4))))"""
ENVELOPE = bytes(range(80))


class Driven:
    """An actor, and what it has sent, as payloads."""

    def __init__(self, host: Any, source: str = "", fuel: int = 0, *, pages: int = 2, **options: Any) -> None:
        self.sent: list[bytes] = []
        self.envelopes: list[bytes] = []
        module = host.compile(source or GUEST.format(pages=pages))
        self.actor = WasmActor(module, host, fuel, **{"send": self.take} | options)

    def take(self, envelope: bytes, payload: bytes) -> None:
        self.envelopes.append(envelope)
        self.sent.append(payload)

    def taken(self) -> list[bytes]:
        """What was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


def count(number: int) -> bytes:
    return number.to_bytes(4, "little", signed=True)
