"""The stability report: the three operations, ours and the textbook's, against exact arithmetic."""
