"""The modules that the provider's tests import by name."""
