"""Results as files: metrics, tables, figures and HTML."""
