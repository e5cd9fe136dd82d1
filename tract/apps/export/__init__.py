"""A run's judge as a standard Hugging Face folder, with ``judge_config.json`` and a model card; on request on the hub."""
