"""The fault matrix: what was broken, what the caller saw, lines and pods counted.

A row breaks one thing in the middle of a run, on a real cluster. What must hold is always this: each line once and in
order, or a marker where lines are missing and nowhere else; one pod, and none in the end; the right outcome. The lines
are counted against the container's log files on the node's disk, so the judge has not read what the broker reads.

`witness` keeps those files, `ledger` compares, `stage` is what a row has in its hands, `beside`, `batch` and
`rows_alone` are the rows, `runner` plays them, `matrix` prints. `make faults` runs all; the short rows are part of the
end-to-end tests too.
"""
