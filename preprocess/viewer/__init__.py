"""A look at a cache in the browser: python -m preprocess inspect CACHE. Served on this machine, from local files alone."""
