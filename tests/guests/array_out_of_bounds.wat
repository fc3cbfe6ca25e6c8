;; Reads beyond the end of a garbage-collected array.
(module
  (type $a (array i32))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (array.get $a (array.new_default $a (i32.const 2)) (i32.const 2)))))
