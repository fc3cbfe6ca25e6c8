;; Calls itself for ever; `deep` does so a given number of times.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func $run (export "run") (result i32) (i32.add (call $run) (i32.const 1)))
  (func $deep (export "deep") (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
      (else (i32.const 0)))))
