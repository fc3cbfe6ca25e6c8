;; Grows its memory page by page and touches every page, until growing is refused; returns the pages it has.
(module
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "run") (result i32) (local $page i32)
    (loop $again
      (local.set $page (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $page) (i32.const -1))
        (then
          (i32.store (i32.mul (local.get $page) (i32.const 65536)) (i32.const 1))
          (br $again))))
    (memory.size)))
