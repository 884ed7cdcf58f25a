"""What is kept of tasks: one SQLite file, or one PostgreSQL database for several hosts. SQL is nowhere else."""
