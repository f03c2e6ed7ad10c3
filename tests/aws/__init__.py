"""Doubles of AWS STS, EKS, S3, Batch and SQS for tests: they verify signatures and trust, and misbehave on command.

One process plays the services and the proxy through which the authenticator of a test cluster reaches STS. Clients
find it through the AWS SDKs' own variables AWS_ENDPOINT_URL_STS, _EKS, _S3, _BATCH and _SQS. A control API, JSON over
HTTP, sets what exists and what fails. It is an oracle for signatures, trust and lifetimes only as far as AWS documents
them.
"""
