"""What a profile is made with: costs beside time, agreement, and whether the machine was steady."""
