"""A trained model applied to items: scores, decision thresholds, attention records."""
