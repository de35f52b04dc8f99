"""Arrays in, arrays out: no public argument, no library's name."""
