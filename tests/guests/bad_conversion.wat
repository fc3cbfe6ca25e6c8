;; Converts a NaN to an integer.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (i32.trunc_f64_s (f64.const nan)))))
