#!/bin/sh
# Compiles the guests with the C compiler of the ziglang package: pip install ziglang==0.17.1, then ./build.sh
set -eu
cd "$(dirname "$0")"
zig="${PYTHON:-python3} -m ziglang"
flags="-target wasm32-wasi -Os -s -fno-lto"
$zig cc $flags -o streams.wasm streams.c
$zig cc $flags -o files.wasm files.c
$zig cc $flags -mexec-model=reactor -o reactor.wasm reactor.c
