"""The wire protocol as pure code: no I/O, no clock, no engine. Both ends of every pipe speak exactly this."""
