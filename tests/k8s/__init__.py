"""The files under `k8s/` without a cluster: they parse, they agree, and they allow what is needed and no more.

`shipped.py` reads them, `policy.py` decides IAM calls by them; parliament and policy_sentry judge the policies with
the actions, resource types and condition keys that AWS publishes. What a cluster makes of the manifests is in
`e2e/test_manifests.py`.
"""
