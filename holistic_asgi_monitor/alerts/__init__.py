"""From what checks see to what people are told: why, in which words, and whether it arrived."""
