;; Traps in a function whose name holds terminal escapes, a newline and a lie.
(module $"\1b[2J evil module"
  (func (export "ok") (result i32) (i32.const 42))
  (func $"\1b[31mSYSTEM OK\0d\0a\e2\80\aeno trap here" (export "run") unreachable))
