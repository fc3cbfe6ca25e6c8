;; Has a data segment that ends one byte beyond its memory.
(module
  (memory (export "memory") 1)
  (data (i32.const 65533) "four"))
