"""What each measure is: one family a file, each from the record alone (metrics.py puts them into one row)."""
