"""What both packages may import: errors, records, the console, files that survive a crash."""
