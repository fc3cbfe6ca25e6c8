;; Divides the smallest integer by -1.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))))
