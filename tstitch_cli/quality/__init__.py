"""What an evaluation is made with: features, statistics and references of pictures, and work that is kept."""
