;; Throws an exception that nobody catches.
(module
  (tag $e (param i32))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (throw $e (i32.const 7))))
