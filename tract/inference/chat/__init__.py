"""A hosted chat model as a judge: what is asked, what comes back, and where the score is in it."""
