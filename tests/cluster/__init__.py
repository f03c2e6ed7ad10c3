"""A real one-node Kubernetes for tests, started from nothing and gone without a trace.

Run it as ``python3 -m cluster`` from the ``tests`` folder; ``README.md`` beside this file has the commands.

Who does what while a cluster runs::

    harness   what the user started; only forwards signals        lifecycle.py
    `- keeper   owns the run's folder, bridge and cgroups         keeper.py
       |- COMMAND   the tests
       `- inside    process 1 of a PID and mount namespace        inside.py
          `- etcd, kube-apiserver, ..., containerd, kubelet, every container

The kernel ends all processes of a PID namespace with its process 1 and drops all mounts of a mount namespace with its
last process. So the death of ``inside``, for whatever reason, is the death of everything Kubernetes started; no list
of pids is kept or trusted. What the kernel does not drop by itself (folder, bridge, cgroups) bears the run's name
and is removed by the keeper, by the harness when the keeper was killed, or by the next run when both were.
"""
