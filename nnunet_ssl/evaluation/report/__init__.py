"""The report of a benchmark of semi-supervised trainers: statistics, tables, figures and one HTML page."""
