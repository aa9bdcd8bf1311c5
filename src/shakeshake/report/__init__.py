"""Run directories turned into one page and into figures. Knows the files of a run, not torch."""
