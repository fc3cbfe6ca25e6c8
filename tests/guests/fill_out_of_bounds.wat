;; Fills one byte more than its memory has.
(module
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (memory.fill (i32.const 1) (i32.const 170) (i32.const 65536))))
