;; Calls through an empty table entry.
(module
  (table 4 funcref)
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (call_indirect (i32.const 3))))
