"""Published studies run anew with capray's policies: Monte Carlo set-ups, their rows and their figures."""
