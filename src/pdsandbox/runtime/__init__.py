"""The room that drives wasmtime: binding, engine, guest, host calls and the in-process host. Nothing else may."""
