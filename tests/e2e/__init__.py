"""End to end on a real cluster: client, broker, API server, kubelet, containers; nothing is played by a double.

Who does what: `site.py` knows the cluster and reads it directly, as a judge; `broker.py` runs brokers; `airflow.py`
runs an Airflow; `proxy.py` stands between two of them and breaks what it is told to; `following.py` collects a watch;
`manifests.py` makes pods; `wire.py` sends what the client of this project would never send. The tests wait on
conditions, never for a length of time.
"""
