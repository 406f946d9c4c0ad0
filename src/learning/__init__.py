"""Models, their training and their scores."""
