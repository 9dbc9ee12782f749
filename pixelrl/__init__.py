"""pixelrl: offline reinforcement learning from pixels for robotic manipulation."""

__version__ = "0.1.0"
