;; Calls a null function reference.
(module
  (type $f (func))
  (func (export "ok") (result i32) (i32.const 42))
  (func $culprit (export "run") (call_ref $f (ref.null $f))))
