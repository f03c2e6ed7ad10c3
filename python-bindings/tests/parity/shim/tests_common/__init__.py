"""What the provider's tests import from ``tests_common``, as far as those tests need it that are run here."""
