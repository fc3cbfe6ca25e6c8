;; Grows a table, 8 bytes an element, until growing is refused; returns the elements it has.
(module
  (table $t 1 funcref)
  (func (export "ok") (result i32) (i32.const 42))
  (func (export "grow") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0)))
  (func (export "run") (result i32)
    (loop $again (br_if $again (i32.ne (table.grow $t (ref.null func) (i32.const 1000)) (i32.const -1))))
    (table.size $t)))
