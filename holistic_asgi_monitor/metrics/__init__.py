"""What is counted: latency cells, series, families, and the page that shows them."""
