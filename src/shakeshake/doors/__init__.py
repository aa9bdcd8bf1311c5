"""The commands, one function each: they read their options, call what does the work, and print what it returns."""
