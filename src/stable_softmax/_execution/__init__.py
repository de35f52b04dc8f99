"""In what parts a kernel runs: on whole rows, in blocks that fit a processor's cache, in chunks, in a sweep."""
