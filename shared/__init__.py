"""The contract between the two stages: what a cache holds, on disk and by name. Never imports torch or open3d."""
