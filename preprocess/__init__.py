"""Stage 1: scans → cache. The only side that may import open3d."""
