"""The judge as an HTTP server: grades, one by one or in batches, with limits, metrics and an end that loses nothing."""
