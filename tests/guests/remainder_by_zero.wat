;; Takes the remainder of a division by zero.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (i64.rem_s (i64.const 1) (i64.const 0)))))
