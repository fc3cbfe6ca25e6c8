;; Makes the host fill four tables of a million entries while instantiating, without executing one instruction.
(module
  (func $f (export "ok") (result i32) (i32.const 42))
  (table 1000000 funcref (ref.func $f))
  (table 1000000 funcref (ref.func $f))
  (table 1000000 funcref (ref.func $f))
  (table 1000000 funcref (ref.func $f)))
