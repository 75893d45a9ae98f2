"""Programs that show a run beside its own files: `--log`."""
