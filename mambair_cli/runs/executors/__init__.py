"""Who does the jobs of a run: this process, several on this machine, a Ray cluster."""
