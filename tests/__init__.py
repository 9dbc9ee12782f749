"""The tests mirror the package, folder by folder; what several of them need lies here."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
