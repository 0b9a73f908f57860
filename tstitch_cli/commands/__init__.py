"""One file per subcommand: parse, call one stage, render."""
