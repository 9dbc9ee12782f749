"""From files to batches: sources, transitions, where frames are stored."""
