"""An exported policy over the network: the server, and the client that runs beside the robot."""
