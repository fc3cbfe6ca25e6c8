;; Calls a function through a table with another type than it has.
(module
  (table funcref (elem $other))
  (func $other (param i64))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (call_indirect (i32.const 0))))
