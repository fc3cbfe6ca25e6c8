"""A guest that computes and does nothing else, and how long a call of it should be to take a given time.

One unit of work is a sieve of Eratosthenes (short loops over memory: what metering costs most) and a Mandelbrot set
(floating point). Its answer is checked: against a table of pi(x), and against the same arithmetic done by Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_LIMIT = 1 << 16
#: Primes below 2**16: https://oeis.org/A007053
_PRIMES = 6542
_SIDE = 48
_MOST = 100

CRUNCH = f"""(module
  (memory (export "memory") 1)

  (func $sieve (result i64) (local $n i32) (local $m i32) (local $primes i64)
    (memory.fill (i32.const 0) (i32.const 1) (i32.const {_LIMIT}))
    (local.set $n (i32.const 2))
    (loop $next
      (if (i32.load8_u (local.get $n)) (then
        (local.set $primes (i64.add (local.get $primes) (i64.const 1)))
        (local.set $m (i32.shl (local.get $n) (i32.const 1)))
        (block $done (loop $strike
          (br_if $done (i32.ge_u (local.get $m) (i32.const {_LIMIT})))
          (i32.store8 (local.get $m) (i32.const 0))
          (local.set $m (i32.add (local.get $m) (local.get $n)))
          (br $strike)))))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $n) (i32.const {_LIMIT}))))
    (local.get $primes))

  (func $escape (param $x f64) (param $y f64) (result i32) (local $a f64) (local $b f64) (local $c f64) (local $n i32)
    (block $out (loop $next
      (br_if $out (i32.ge_u (local.get $n) (i32.const {_MOST})))
      (br_if $out (f64.gt
        (f64.add (f64.mul (local.get $a) (local.get $a)) (f64.mul (local.get $b) (local.get $b))) (f64.const 4)))
      (local.set $c (f64.add
        (f64.sub (f64.mul (local.get $a) (local.get $a)) (f64.mul (local.get $b) (local.get $b))) (local.get $x)))
      (local.set $b (f64.add (f64.mul (f64.mul (f64.const 2) (local.get $a)) (local.get $b)) (local.get $y)))
      (local.set $a (local.get $c))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br $next)))
    (local.get $n))

  (func $mandelbrot (result i64) (local $row i32) (local $column i32) (local $sum i64)
    (loop $rows
      (local.set $column (i32.const 0))
      (loop $columns
        (local.set $sum (i64.add (local.get $sum) (i64.extend_i32_u (call $escape
          (f64.sub (f64.mul (f64.convert_i32_u (local.get $column)) (f64.const {3 / _SIDE})) (f64.const 2.25))
          (f64.sub (f64.mul (f64.convert_i32_u (local.get $row)) (f64.const {3 / _SIDE})) (f64.const 1.5))))))
        (local.set $column (i32.add (local.get $column) (i32.const 1)))
        (br_if $columns (i32.lt_u (local.get $column) (i32.const {_SIDE}))))
      (local.set $row (i32.add (local.get $row) (i32.const 1)))
      (br_if $rows (i32.lt_u (local.get $row) (i32.const {_SIDE}))))
    (local.get $sum))

  (func (export "crunch") (param $units i32) (result i64) (local $sum i64)
    (loop $next
      (local.set $sum (i64.add (local.get $sum) (i64.add (call $sieve) (call $mandelbrot))))
      (br_if $next (local.tee $units (i32.sub (local.get $units) (i32.const 1)))))
    (local.get $sum)))"""

Crunch = Callable[[int], int]

# Some ten milliseconds.
_TRY = 30


def check(units: int, answer: object) -> None:
    """RuntimeError unless that is what `units` units come to."""
    if answer != units * _UNIT:
        raise RuntimeError(f"crunch({units}) gave {answer}, not {units * _UNIT}")


def units_for(seconds: float, crunch: Crunch) -> int:
    """How many units `crunch` does in about that time, by the fastest of a few tries."""
    crunch(_TRY)
    return max(1, round(_TRY * seconds / min(_timed(crunch) for _ in range(3))))


def _timed(crunch: Crunch) -> float:
    started = time.perf_counter()
    check(_TRY, crunch(_TRY))
    return time.perf_counter() - started


def _escape(x: float, y: float) -> int:
    a = b = 0.0
    for n in range(_MOST):
        if a * a + b * b > 4:
            return n
        a, b = a * a - b * b + x, 2 * a * b + y
    return _MOST


_STEP = 3 / _SIDE
_UNIT = _PRIMES + sum(
    _escape(column * _STEP - 2.25, row * _STEP - 1.5) for row in range(_SIDE) for column in range(_SIDE)
)
