"""The report: the paper's figures in miniature on the bundled family, each beside the paper's own."""
