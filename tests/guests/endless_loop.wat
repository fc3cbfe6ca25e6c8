;; Loops for ever and calls nobody: only fuel or a deadline ends it.
(module
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "run") (loop $again (br $again))))
