"""How fast is it, on this machine, against what else one could do? `python -m benchmarks` from the repository's root.

Uses pdsandbox through its public names only, like anybody else. Each group of measurements (`--help` names them) opens
what it compares, side by side; `measure` takes their samples in turns and `session` goes through the groups; `report`
sets each figure against its baseline from the same run and against its bar; `table` and `page` show it, `compare` says
what changed between two reports.
"""
