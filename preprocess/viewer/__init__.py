"""Pages that show a cache in the browser: python -m preprocess inspect CACHE. Served from local files, to this machine."""
