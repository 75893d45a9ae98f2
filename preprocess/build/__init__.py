"""From the scans of a data set to a complete cache: plan, shards, workers, verification; dynamic images of a cache."""
