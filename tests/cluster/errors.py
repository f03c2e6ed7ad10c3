"""The one exception a user of the harness may see: a sentence that says what is wrong and what to do."""


class ClusterError(Exception):
    """The cluster cannot be built, started or used. The message is meant for a person, without a traceback."""
