"""What does the jobs of a run: this process, worker processes, a Ray cluster."""
