"""WASI preview 1 for one guest: the 46 functions of `wasi_snapshot_preview1`, over the guest's memory and real files.

It behaves as wasmtime's own does on Linux, except where RATIONALE.md says so. It knows nothing of pipes to a
supervisor, of deadlines, or of who has opened the descriptors that it is given.
"""
