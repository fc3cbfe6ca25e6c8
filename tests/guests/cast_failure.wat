;; Casts a reference to a type that it does not have.
(module
  (type $a (array i32))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (drop (ref.cast (ref $a) (ref.i31 (i32.const 1))))))
