"""The table of rounds and the page."""
