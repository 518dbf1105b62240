"""The demo: a small shop under real traffic, watched by the one line, with a planned failure."""
