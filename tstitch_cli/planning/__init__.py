"""What a plan is made with: rows, their times and losses, orders, the exact optimum, and how sure all of it is."""
