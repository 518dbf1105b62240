"""What the monitor costs: a request (`benchmarks.requests`) and a scrape (`benchmarks.scrape`)."""
