"""Pages that show a cache in the browser: python -m preprocess inspect --cache CACHE. Served to this machine."""
