"""What a caller may pass: everything is checked here, before any work is done."""
