"""A trained model applied to items: evaluate, predict, export; scores, decision thresholds, attention records."""
