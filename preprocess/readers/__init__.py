"""One file a format: bytes → Mesh. Every reader trusts nothing in its file and raises ScanError naming it."""
