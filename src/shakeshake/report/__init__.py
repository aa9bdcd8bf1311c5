"""One self-contained HTML page from run directories. Loads no torch."""
