"""Where policies are tried: tasks, scripted policies, rollouts and their statistics."""
