"""What comes from the hub, and what is told where it does not."""
