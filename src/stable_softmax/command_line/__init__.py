"""What the commands share: files, examples, findings, and results as text, JSON, HTML and drawings."""
