"""The fork server: a clean, single-threaded process that forks, watches and reports workers and compilers."""
