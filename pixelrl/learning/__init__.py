"""One gradient step: batch, networks, what terms share, objectives, the learner."""
