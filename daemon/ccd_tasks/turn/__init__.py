"""One step of a task: a turn of the local daemon's, with its attempts, deadline and cost."""
