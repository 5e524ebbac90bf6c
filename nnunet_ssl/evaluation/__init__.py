"""Metrics, benchmark runner, statistics, tables and plots."""
