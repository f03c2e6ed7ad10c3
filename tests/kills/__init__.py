"""The kill matrix: what ends a task's process in a real Airflow, and what becomes of the task, its tries and its pod.

Every way to end one, at each moment of the pod (pending, running, ending), for synchronous and deferred tasks, without
retries and with two. The pods are watched beside the broker, the lines number themselves, and the tasks are those of a
whole Airflow with LocalExecutor and triggerer, so nothing here believes what the product says of itself.

`cell` names the cells, `rows` says what each must give and why, `stage` is what a row has in its hands, `plays` does
what the cell is about, `judge` compares, `runner` plays them side by side, `everything` is one DAG with all kinds of
tasks and a hundred mapped ones, `matrix` prints. `make kills` runs all of it.
"""
