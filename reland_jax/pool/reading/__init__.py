"""What an LLM answers: the two steps, found in whatever form they come."""
