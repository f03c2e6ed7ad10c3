"""What this project costs, beside its peers: same cluster, same pods, same run.

`python -m bench [PART ...]`, started by `make bench BENCH='PART ...'`, measures and prints Markdown tables with their
conditions. Nothing is asserted: a number that got worse is for a person to judge. What is wrong, such as a line that
was lost, is printed as such.

A part is a module with `add_options` and `measure` (`stage.Part`), named in `__main__`. Each measured client has a user
name of its own in the audit log.

- `operators`: short pods by the operators, their requests, delays and memory. `task.py` is one task in a process of its
  own, `observer.py` the neutral eye on the cluster, `lanes.py` runs one beside the other.
- `identity`: the calls of AWS, and the time of a token, ours by the crate `mint`.
- `logs`: lines through the broker, beside `kubectl logs`. `tasklogs`: lines in the log of an Airflow task.
- `deferred`: deferred tasks in one triggerer, with `triggerer.py` as that.
- `submits`: starting pods, beside plain creates. `scale`: thousands of executions at once.
- `batch`: thousands of jobs of AWS Batch, beside the Amazon provider's trigger. `triggers.py` is a triggerer of either.

`driver` is a Rust program with the measuring clients that must be fast; `processes.py` runs it.
"""
