//! From a target's settings to a Kubernetes client.
