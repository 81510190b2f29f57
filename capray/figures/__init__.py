"""The parts of the figures: data, style, the signature figure, one trial's timeline and space-time diagram."""
