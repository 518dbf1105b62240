"""The rooms on the way of a request: counting it, naming it, answering our own paths."""
