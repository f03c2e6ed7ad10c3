"""Runs the Kubernetes provider's own unit tests, byte for byte, with our classes in the place of the provider's.

The tests come from the source distribution of the pinned version (``sources``). They import a package ``tests_common``
that is published nowhere in a version that fits; ``shim`` is ours. ``plugin`` puts our classes where the tests look for
the provider's and holds every test to ``expected.toml``: passed, or waived in a category that has a reason. ``broker``
is the broker that the operator speaks to meanwhile; it plays what the test has prepared for upstream's ``PodManager``.
"""
