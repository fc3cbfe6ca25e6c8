;; Executes `unreachable`, three functions deep.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $inner unreachable)
  (func $middle (call $inner))
  (func $outer (export "run") (call $middle)))
