;; Grows by $pages at once, then writes all of it with one bulk instruction, for ever: hardly any fuel, much time.
(module
  (memory (export "memory") 1)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "fill_once") (param $pages i32) (result i32)
    (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1)) (then (return (i32.const -1))))
    (memory.fill (i32.const 0) (i32.const 170) (i32.mul (local.get $pages) (i32.const 65536)))
    (local.get $pages))
  (func (export "run") (param $pages i32)
    (drop (memory.grow (local.get $pages)))
    (loop $again
      (memory.fill (i32.const 0) (i32.const 170) (i32.mul (memory.size) (i32.const 65536)))
      (br $again))))
