"""What Linux offers to take away from a process: one module a mechanism, each with its way to prove that it holds.

Only the fork server and its children use it. Every function acts on the calling thread or process, does what it says
or raises OSError, and nothing here knows when or in which order it is called.
"""
