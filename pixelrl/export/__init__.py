"""How a policy leaves: the artefact, its proof, and the runtime on the robot."""
