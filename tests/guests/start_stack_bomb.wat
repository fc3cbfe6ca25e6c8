;; Exhausts the stack in its start function.
(module
  (func $start (call $start) (call $start))
  (start $start))
