;; Keeps every one of ever more objects alive until the collector's heap may not grow.
(module
  (type $bytes (array (mut i8)))
  (type $node (struct (field (ref null $node)) (field (ref null $bytes))))
  (global $all (mut (ref null $node)) (ref.null $node))
  (func (export "run")
    (loop $again
      (global.set $all
        (struct.new $node (global.get $all) (array.new_default $bytes (i32.const 100000))))
      (br $again)))
  (func (export "ok") (result i32) (i32.const 42)))
