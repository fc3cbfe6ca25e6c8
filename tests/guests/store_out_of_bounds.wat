;; Stores at the highest address there is.
(module
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (i64.store (i32.const -1) (i64.const 1))))
