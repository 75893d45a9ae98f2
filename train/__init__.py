"""Stage 2: cache → results. Never imports preprocess, open3d or a text tower."""
