"""AWS Batch on EKS as a double: the wire format of botocore's model, and real pods on a real cluster.

Played are SubmitJob, DescribeJobs, ListJobs, TerminateJob(s), CancelJob(s), RegisterJobDefinition,
DescribeJobDefinitions, DeregisterJobDefinition, DescribeJobQueues, DescribeComputeEnvironments, TagResource,
UntagResource and ListTagsForResource. Clients find it through AWS_ENDPOINT_URL_BATCH. Every request is checked against
the model and the documented limits, every answer against the model and botocore's parser; what is wrong is answered as
AWS would, and kept as a violation, which a test asks for at its end.

The configuration (`PUT /config`) has a section `batch`:

- `queues`: `{"REGION/NAME": {"compute_environments": [NAMES], "account", "state", "status", "statusReason",
  "priority", "scheduling_policy"}}`.
- `compute_environments`: `{"REGION/NAME": {"cluster": NAME, "namespace": NAME, "kubeconfig": PATH or what stands in
  one, "account", "state", "status", "statusReason", "service_role", "access_entry", "max_vcpus", "nodes",
  "max_pods"}}`. `nodes` names nodes that pods are bound to in turn, such as those that kwok plays; without, the
  cluster's scheduler places them. `max_pods` is how many there may be at once: further jobs wait in RUNNABLE.

What has no `account` is everybody's; of a queue's environments the first that exists is used.

Control, JSON over HTTP, beside what `aws.server` has:

- `PUT /faults` knows `"service": "batch"` with the kinds of all services. `throttle` is 429 TooManyRequestsException,
  and with `"rate": N` lets N calls a second pass; `reset` cuts the connection before anything is done, `lost_answer`
  after all is done.
- `PUT /batch/behaviour` with a list of rules, and `GET`: when jobs are held, lost, ended, seen and cleared away; the
  settings are in `behaviour`.
- `GET /batch/jobs?name=PATTERN`: the truth about jobs, whatever DescribeJobs says: `id`, `name`, `queue`, `status`,
  `reason`, `created`, `stopped`, `tags`, `is_terminated`, `attempts` (the names of pods that have ended), `pod`,
  `children` (their statuses). Two with one name are doubled. Times are in seconds since the epoch.
- `GET /batch/counts`: requests by operation and outcome, and by second; `DELETE` begins anew.
- `GET /batch/violations`; `DELETE` returns them, too, and forgets them.
- `POST /batch/lose` with `{"job": ID, "reason": TEXT, "grace": SECONDS}`: the node of a job's pod goes away now.
- `POST /batch/terminate` with `{"job": ID, "reason": TEXT}`: somebody else terminates a job.
- `POST /batch/finish` with `{"job": ID}` or `{"name": PATTERN}`, and `"exit_code"`: ends pods on played nodes, as a
  kubelet would.

`POST /reset` deletes the pods of all jobs before it answers. Jobs end with the process: they are in no file.

What AWS does not document is chosen here: children of arrays have `PARENT.INDEX` in the label of the job id, the
container that Batch calls Default is `default` in the pod, a pod that somebody else deletes fails its attempt with "Pod
was deleted", a lost node with "Host EC2 (instance ...) terminated.", and tags in SubmitJob need `batch:TagResource` on
`job/*`, as AWS says of operations that tag what they make.
"""
