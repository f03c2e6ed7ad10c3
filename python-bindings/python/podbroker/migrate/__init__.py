"""Rewrites the imports of a DAG folder from the operators of Airflow's providers to those of this package.

``python -m podbroker.migrate FOLDER`` (also ``podbroker-migrate``) shows a diff and a list of what a person has to
look at, and changes nothing; ``--write`` applies the diff. A file is read as source and never imported, so neither
Airflow nor anything else that the DAGs import need be installed. What is not rewritten stays as it is, byte for byte.

The parts: ``names`` holds what takes the place of what, ``source`` is a file's text with its encoding, ``tree`` its
syntax with what names stand for, ``imports`` and ``statement`` make the edits, ``kinds`` says what a name makes,
``arguments``, ``values`` and ``people`` find what a machine should not decide, ``analysis`` puts them together,
``workers`` does it for many files, ``files`` walks folders and writes, ``command`` talks.
"""
