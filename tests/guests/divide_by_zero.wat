;; Divides an integer by zero.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (i32.div_u (i32.const 1) (i32.const 0)))))
