;; Asks for a garbage-collected array of 2**32 - 1 elements.
(module
  (type $a (array i64))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (array.new_default $a (i32.const -1)))))
