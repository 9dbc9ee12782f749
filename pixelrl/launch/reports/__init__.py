"""Pages, tables and figures for people."""
