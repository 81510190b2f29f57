"""The atomic register over majorities (Attiya, Bar-Noy and Dolev 1995)."""
