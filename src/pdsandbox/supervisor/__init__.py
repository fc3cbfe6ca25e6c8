"""The trusted side, inside the user's process. Imports neither wasmtime nor anything that runs in a worker."""
