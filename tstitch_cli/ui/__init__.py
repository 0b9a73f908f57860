"""The page that `tstitch ui` shows in a browser: what it offers, what it does, and how it looks."""
