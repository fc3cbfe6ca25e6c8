;; Hands the host a pointer outside its memory from its start function.
(module
  (import "env" "pd_log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $start (call $log (i32.const 3) (i32.const 65536) (i32.const 1)))
  (start $start))
