"""The typed configuration: schema, vocabulary, and what the help shows of it."""
