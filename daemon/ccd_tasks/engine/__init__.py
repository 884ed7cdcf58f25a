"""The durable part: DBOS, the workflow that runs a task, its queue, and the hosts that share one."""
