"""What the session service decides, without doing anything."""
