;; Declares a 64-bit memory of 256 TiB from the beginning.
(module
  (memory (export "memory") i64 0x100000000)
  (func (export "ok") (result i32) (i32.const 42)))
