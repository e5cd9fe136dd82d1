"""Engines that serve many requests at once: vLLM, and servers of OpenAI's completions protocol."""
