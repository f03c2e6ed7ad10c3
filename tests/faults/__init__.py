"""The fault matrix: what was broken, what the caller saw, lines and pods counted.

Each test breaks one part of a real cluster, or of the broker, in the middle of a run. What must hold is always this:
each line once and in order, or a gap that says so; one pod; the right outcome. `make faults` runs them on a cluster
whose kubelet rotates logs early and whose controllers give a silent node up soon.
"""
