"""A program: COUNT processes on one cache at once, all of which start at the same moment. Run by a test.

Each loads and stores the same few modules, in its own order, in a cache with room for some of them. One JSON object:
what was wrong, and how many loads found something.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
from pathlib import Path

base, count, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
sys.path[:0] = sys.argv[4:]

from caching import Shelf  # noqa: E402

MODULES = {name: bytes([name]) * (2000 + 100 * name) for name in range(8)}


def one(number: int, go: int) -> dict[str, object]:
    wrong: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: wrong.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("pdsandbox").addHandler(handler)
    dice, found = random.Random(number), 0
    os.read(go, 1)  # end of file: everybody is there
    shelf = Shelf(base, 10_000)
    for _ in range(rounds):
        name = dice.choice(list(MODULES))
        code = shelf.load(name)
        if code is None:
            shelf.store(name, MODULES[name])
        elif code != MODULES[name]:
            wrong.append(f"{name} is something else")
        else:
            found += 1
    return {"wrong": wrong, "found": found}


def main() -> None:
    go, start = os.pipe()
    results = []
    for number in range(count):
        results.append(os.pipe())
        if os.fork() == 0:
            os.close(start)
            try:
                told = one(number, go)
            except BaseException as exc:
                told = {"wrong": [repr(exc)], "found": 0}
            with os.fdopen(results[-1][1], "w") as out:
                json.dump(told, out)
            os._exit(0)
        os.close(results[-1][1])
    os.close(start)
    total = {"wrong": [], "found": 0}
    for result, _ in results:
        with os.fdopen(result) as told:
            one_told = json.load(told)
        total["wrong"] += one_told["wrong"]
        total["found"] += one_told["found"]
    for _ in results:
        os.wait()
    print(json.dumps(total))


main()
