;; Declares a memory of 4 GiB from the beginning.
(module
  (memory (export "memory") 65536)
  (func (export "ok") (result i32) (i32.const 42)))
