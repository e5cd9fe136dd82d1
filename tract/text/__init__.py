"""From a judge example to token ids: schema, score grid, prompt, truncation, sequence layout."""
