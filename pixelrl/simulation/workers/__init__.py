"""Worker processes, on this machine or on a Ray cluster, that do jobs and may be lost."""
