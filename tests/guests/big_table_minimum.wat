;; Declares a table of a thousand million elements from the beginning.
(module
  (table 1000000000 funcref)
  (func (export "ok") (result i32) (i32.const 42)))
