"""One series over time: what may be asked, how it is read from history, how it is written."""
