"""What makes steps cheaper or memory smaller: caches, and parts that take turns."""
