"""How an LLM is asked: the engine, the journal of requests and answers, limits, and money."""
