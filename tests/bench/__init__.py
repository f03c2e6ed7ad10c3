"""What this project costs, beside the provider's KubernetesPodOperator: same cluster, same pods, same run.

`python -m bench`, started by `make bench`, measures three things and prints a table of each: the requests that an
execution costs the API server, the time from a container's end to the end of the task, and the memory of a task's
process. Nothing is asserted: a number that got worse is for a person to judge.

`task.py` is one task in a process of its own, `observer.py` the neutral eye on the cluster, `lanes.py` runs one beside
the other, `tables.py` adds up and prints. Each measured client has a user name of its own in the audit log.
"""
