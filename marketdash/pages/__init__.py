"""Pages arrange views on a screen."""
