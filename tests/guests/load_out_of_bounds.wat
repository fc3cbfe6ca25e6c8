;; Loads four bytes of which the last one is beyond its memory.
(module
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (i32.load (i32.const 65533)))))
