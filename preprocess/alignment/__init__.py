"""From a scan to the face frame: where the nose is, which way the face looks, heads held still over a sequence."""
