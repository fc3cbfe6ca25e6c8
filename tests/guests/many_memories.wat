;; Declares nine memories, each of which could be as large as the limit.
(module
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (memory 1)
  (func (export "ok") (result i32) (i32.const 42)))
