"""What the application does for its users: decorated calls, features, users, OpenAI."""
