"""A cache without a browser: contact sheets, animated GIFs, a summary in text."""
