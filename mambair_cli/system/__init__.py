"""Files, processes, signals and memory: what the operating system gives."""
