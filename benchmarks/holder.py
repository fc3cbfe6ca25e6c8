"""Another process that holds bytes, for the bulk baselines: `python -I -S holder.py COMMANDS_FD ANSWERS_FD SIZE`.

First answer: the address of its buffer, for process_vm_readv and _writev. Then it obeys commands: send that many bytes
through the pipe, or take as many from it and say so. Blocking reads and writes; end of file ends it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

ADDRESS = struct.Struct("<Q")
COMMAND = struct.Struct("<cQ")
SEND, TAKE, DONE = b"S", b"T", b"D"


def hold(commands: int, answers: int, size: int) -> None:
    """Serve until end of file."""
    buffer = bytearray(size)
    buffer[:] = bytes(range(256)) * (size // 256)
    os.write(answers, ADDRESS.pack(ctypes.addressof((ctypes.c_char * size).from_buffer(buffer))))
    view = memoryview(buffer)
    while command := os.read(commands, COMMAND.size):
        kind, count = COMMAND.unpack(command)
        done = 0
        if kind == SEND:
            while done < count:
                done += os.write(answers, view[done:count])
        else:
            while done < count:
                got = os.readv(commands, [view[done:count]])
                if not got:
                    return
                done += got
            os.write(answers, DONE)


if __name__ == "__main__":
    try:
        hold(*(int(argument) for argument in sys.argv[1:4]))
    except BrokenPipeError:
        pass  # who asked has ended while it was being answered
