"""The command line: one function for each command, which reads options, calls the library and prints the result."""
