"""From results to messages: what to say of an incident, why, and whether it has arrived."""
