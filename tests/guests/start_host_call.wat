;; Calls the host from its start function.
(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 8) "started")
  (func $start (call $log (i32.const 3) (i32.const 8) (i32.const 7)))
  (func (export "ok") (result i32) (i32.const 42))
  (start $start))
