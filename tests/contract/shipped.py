"""Functions to ship with `in_worker`: this module can be imported by the tests and not by a worker."""

from __future__ import annotations

import math

FACTOR = 3
STATE = {"calls": 0}


def helper(value):
    return value * FACTOR


def uses_module_globals(caller, value):
    STATE["calls"] += 1
    return helper(value) + STATE["calls"]


def uses_a_module(caller, value):
    return math.isqrt(value)


def make_closure(offset):
    def closure(caller, value):
        return helper(value) + offset

    return closure


class Adder:
    def __init__(self, offset):
        self.offset = offset

    def __call__(self, caller, value):
        return helper(value) + self.offset

    def method(self, caller, value):
        return helper(value) + self.offset
