"""Run folders: evaluate, export and verify a run; read what it recorded."""
